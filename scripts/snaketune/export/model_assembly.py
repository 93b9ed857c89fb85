"""A model put together of a base, other values for some weights, and an adapter, in fp32.

Where memory lacks for that, the weights stay on disk and come in layer by layer (accelerate).
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.hooks import attach_align_device_hook
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from snaketune.models.load_model import attention_implementation, available_memory, load_model
from snaketune.models.weights import Stored

Values = Mapping[str, Callable[[], torch.Tensor]]
"""Weights by the parameter's name, computed when they are asked for."""

_SHARE = 0.7
"""Of the memory there is, for weights; activations and logits need the rest."""


def assembled(
    folder: Path, where: torch.device, values: Values | None = None, adapter: Path | None = None
) -> Any:
    """Return a causal language model in evaluation mode, with fp32 weights and arithmetic.

    Args:
        folder: The base model's, or a merged one's.
        values: What to use in place of some of the folder's weights. An output layer that is tied
            to the embeddings follows them, unless it has a value of its own.
        adapter: A PEFT adapter to apply.
    """
    size = sum(shape.numel() * 4 for shape in Stored(folder).shapes.values())
    if size < _SHARE * available_memory(where):
        return _resident(folder, where, values or {}, adapter)
    return streamed(folder, where, values or {}, adapter)


def _resident(folder: Path, where: torch.device, values: Values, adapter: Path | None) -> Any:
    model = load_model(folder, torch.float32, where)
    for name, compute in values.items():
        layer, _, part = name.rpartition(".")
        value = torch.nn.Parameter(compute().to(where, torch.float32), requires_grad=False)
        setattr(model.get_submodule(layer), part, value)
    if values.keys().isdisjoint(tied_weights(model)):
        model.tie_weights(recompute_mapping=False)
    return PeftModel.from_pretrained(model, adapter).eval() if adapter else model.eval()


def streamed(folder: Path, where: torch.device, values: Values, adapter: Path | None) -> Any:
    """Return the same with its weights on disk: each layer reads its own when it runs."""
    model: Any = without_weights(folder)
    layers = [*(model._no_split_modules or ()), "Linear", "Embedding", "ModulesToSaveWrapper"]
    stored, tied = base_weights(folder, model)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter, low_cpu_mem_usage=True)
    weights = _OnDisk(stored, Stored(adapter) if adapter else {}, values, tied)
    attach_align_device_hook(
        model,
        execution_device=where,
        offload=True,
        weights_map=weights,
        preload_module_classes=layers,
    )
    return model.eval()


def without_weights(folder: Path) -> PreTrainedModel:
    """Return a folder's model with its layers and no weights, on the device `meta`."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    attention = attention_implementation(torch.device("cpu"), torch.float32)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation=attention
        )
    model.tie_weights()
    return model


def base_weights(folder: Path, model: PreTrainedModel) -> tuple[Stored, dict[str, str]]:
    """Return a folder's weights by the names of the model's parameters, and `tied_weights`.

    Files may leave out a prefix (GPT-2's `h.0` is the model's `transformer.h.0`), and hold a tied
    weight twice or as the output layer's; here it is the embeddings'. Where the two differ,
    transformers ties nothing, whatever config.json says.
    """
    stored, known, prefix = Stored(folder), model.state_dict(), model.base_model_prefix
    names = {
        name: full if name not in known and (full := f"{prefix}.{name}") in known else name
        for name in stored
    }
    stored, tied = stored.renamed(names), tied_weights(model)
    for output, embeddings in tied.items():
        names = {name: name for name in stored}
        if output in stored and embeddings in stored:
            if not torch.equal(stored[output], stored[embeddings]):
                return stored, {}
            del names[output]
        elif output in stored:
            names[output] = embeddings
        stored = stored.renamed(names)
    return stored, tied


def tied_weights(model: PreTrainedModel) -> dict[str, str]:
    """Return {output layer's weight: input embeddings' weight} of a model that ties them."""
    names = {module: name for name, module in model.named_modules()}
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if not model.config.tie_word_embeddings or output is None:
        return {}
    return {f"{names[output]}.weight": f"{names[embeddings]}.weight"}


class _OnDisk(Mapping[str, torch.Tensor]):
    """A model's weights in fp32 by the names that its modules have, PEFT's wrappers included."""

    def __init__(
        self,
        base: Stored,
        adapter: Mapping[str, torch.Tensor],
        values: Values,
        tied: dict[str, str],
    ) -> None:
        self.base, self.adapter, self.replaced, self.tied = base, adapter, values, tied

    def __getitem__(self, name: str) -> torch.Tensor:
        saved = name.replace("vector.default.weight", "vector").replace(".default", "")
        saved = saved.replace(".modules_to_save", "")
        if saved in self.adapter:
            return self.adapter[saved].float()
        own = name.removeprefix("base_model.model.")
        own = own.replace(".base_layer", "").replace(".original_module", "")
        if own not in self.replaced and own not in self.base:
            own = self.tied[own]
        return (self.replaced[own]() if own in self.replaced else self.base[own]).float()

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)
