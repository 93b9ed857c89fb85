"""LoRA on a base model, through PEFT."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft import set_peft_model_state_dict as set_state
from transformers import PreTrainedModel

from snaketune.errors import UserError
from snaketune.experiment.schema import Method


def lora_config(method: Method) -> LoraConfig:
    """Return PEFT's configuration of a method."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=method.r,
        lora_alpha=method.alpha,  # type: ignore[arg-type]  # PEFT computes alpha / r in floats
        lora_dropout=method.dropout,
        target_modules=method.target_modules,
    )


def attach(model: PreTrainedModel, method: Method, seed: int) -> PeftModel:
    """Freeze a model and add freshly initialised LoRA weights, in fp32 whatever the base's dtype.

    Raises:
        UserError: `method.target_modules` names no layer of this model.
    """
    torch.manual_seed(seed)
    try:
        return get_peft_model(model, lora_config(method))  # type: ignore[return-value]
    except ValueError as error:
        layers = {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        raise UserError(
            f"method.target_modules: {error}\n  Fix: choose among {', '.join(sorted(layers))}, "
            "or write all-linear."
        ) from error


def adapter_state(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return copies of the adapter's weights on the CPU, named as in a PEFT adapter file."""
    state: dict[str, Any] = get_peft_model_state_dict(model)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def load_adapter_state(model: PeftModel, state: dict[str, torch.Tensor]) -> None:
    """Put weights from `adapter_state` into a model with the same adapter."""
    set_state(model, state)


def trainable_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that training changes."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
