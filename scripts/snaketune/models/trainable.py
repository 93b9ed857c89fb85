"""What is trained: LoRA beside a base model, through PEFT, or the base's own weights."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft import set_peft_model_state_dict as set_state
from transformers import PreTrainedModel

from snaketune.core.errors import UserError
from snaketune.experiment.schema import Method
from snaketune.models.lora import speed_up


def lora_config(method: Method) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=method.r,
        lora_alpha=method.alpha,  # type: ignore[arg-type]  # PEFT computes alpha / r in floats
        lora_dropout=method.dropout,
        target_modules=method.target_modules,
        modules_to_save=method.modules_to_save or None,
        use_rslora=method.rslora,
        use_dora=method.dora,
    )


def make_trainable(
    model: PreTrainedModel, method: Method, seed: int, unsharded: bool = True
) -> PreTrainedModel | PeftModel:
    """Add freshly initialised LoRA weights to a frozen model, or free all weights.

    The model is in training mode; what is trained is in fp32, whatever the base's dtype.

    Args:
        unsharded: Every process holds all weights, as it does but in ZeRO stage 3.

    Raises:
        UserError: The method's layers name none of this model.
    """
    torch.manual_seed(seed)
    if method.name == "full":
        return model.float().requires_grad_(True).train()
    try:
        adapted: PeftModel = get_peft_model(model, lora_config(method))  # type: ignore[assignment]
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
    for parameter in trainable_parameters(adapted):
        parameter.data = parameter.data.float()
    if unsharded:
        speed_up(adapted)
    return adapted.train()


def needs_autocast(method: Method) -> bool:
    """Tell whether whole layers are trained: their fp32 weights meet a base of fewer bits."""
    return method.name == "full" or bool(method.modules_to_save)


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """Copies of what was trained on the CPU: named as in a PEFT adapter, or all weights."""
    state: dict[str, Any] = (
        get_peft_model_state_dict(model)
        if isinstance(model, PeftModel)
        else dict(model.named_parameters())
    )
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def load_trained_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Put what `trained_weights` returned into a model of the same method."""
    if isinstance(model, PeftModel):
        set_state(model, weights)
    else:
        model.load_state_dict(weights, strict=False)  # a tied output layer is there once


def trainable_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def count_trained(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in trainable_parameters(model))
