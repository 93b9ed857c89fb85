"""What training changed in a base model, a tensor at a time.

The sums are PEFT's (LoRA, rsLoRA, DoRA), in fp32. They are done here in blocks of rows, because
PEFT's own merge needs the whole model in memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers.pytorch_utils import Conv1D

from snaketune.core.errors import UserError
from snaketune.models.checkpoint import CheckpointState
from snaketune.models.weights import Stored

_ELEMENTS, _ROWS = 2**19, 64
"""Of a block: 2 MiB in fp32, which stay in the processor's cache; and a number that its rows are a
multiple of, with which a product has the same bits as one of the whole matrix."""

_PREFIX = "base_model.model."
_PARTS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude",
}


@dataclass(frozen=True)
class Trained:
    """The trained tensors of a run.

    Attributes:
        whole: New values by the name of the parameter they replace.
        low_rank: Updates by the name of the parameter they are added to.
        is_whole_model: All parameters were trained, tied ones as one.
    """

    whole: Mapping[str, torch.Tensor]
    low_rank: Mapping[str, "LowRank"] = field(default_factory=dict)
    is_whole_model: bool = False

    @classmethod
    def of_whole(cls, checkpoint: CheckpointState) -> "Trained":
        """Return the trained tensors of a full fine-tune's checkpoint: all of them."""
        return cls(checkpoint["weights"], is_whole_model=True)

    @property
    def names(self) -> set[str]:
        """The names of all parameters that training changed."""
        return {*self.whole, *self.low_rank}

    def values(self) -> dict[str, Callable[[], torch.Tensor]]:
        """Return the new values of the parameters that are replaced."""
        return {name: partial(self.whole.__getitem__, name) for name in self.whole}

    def blocks(self, name: str, weight: torch.Tensor) -> Iterator[torch.Tensor]:
        """Return a parameter after training, in fp32, in consecutive blocks of rows.

        Args:
            name: The parameter's name in the model.
            weight: Its value before, in any dtype.
        """
        if name in self.low_rank:
            yield from self.low_rank[name].added_to(weight)
        else:
            for block in in_blocks(self.whole.get(name, weight)):
                yield block.float()


@dataclass(frozen=True)
class LowRank:
    """A LoRA update of one weight: scale * (b @ a), with DoRA rescaled to `magnitude`.

    Attributes:
        source: Where the tensors are read from, by `keys`: a (r, in), b (out, r), magnitude (out).
        transposed: The weight is stored as (in, out), as embeddings and GPT-2's layers are.
    """

    source: Mapping[str, torch.Tensor]
    keys: dict[str, str]
    scale: float
    transposed: bool

    def added_to(self, weight: torch.Tensor) -> Iterator[torch.Tensor]:
        """Return the updated weight in fp32, in consecutive blocks of rows."""
        parts = {part: self.source[key].float() for part, key in self.keys.items()}
        left, right = parts["b"], parts["a"]
        if self.transposed:
            left, right = right.T, left.T
        begin = 0
        for block in in_blocks(weight):
            rows = slice(begin, begin := begin + len(block))
            updated = (left[rows] @ right).mul_(self.scale).add_(block)
            if "magnitude" in parts:
                updated *= (parts["magnitude"][rows] / torch.linalg.norm(updated, dim=1))[:, None]
            yield updated


def in_blocks(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return a tensor's rows in consecutive blocks that the allocator can reuse."""
    if not tensor.dim():
        return [tensor]
    rows = _ELEMENTS // max(1, tensor[:1].numel()) // _ROWS * _ROWS
    return tensor.split(max(_ROWS, rows))


def read_adapter(folder: Path, model: torch.nn.Module) -> Trained:
    """Return the trained tensors of an adapter in PEFT's format.

    Args:
        folder: With adapter_config.json and adapter_model.safetensors.
        model: The base's layers; its weights may be on the device `meta`.

    Raises:
        UserError: A file is damaged, or the adapter holds what cannot be merged into this base.
    """
    config = LoraConfig.from_pretrained(str(folder))
    source = Stored(folder)
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    whole, keys = {}, dict[str, dict[str, str]]()
    for key in source:
        layer, part = _split(key)
        if part in _PARTS:
            keys.setdefault(layer, {})[_PARTS[part]] = key
        elif not layer.endswith("base_layer"):  # a copy of the base's embeddings
            whole[f"{layer}.{part}"] = source[key]
    modules = dict(model.named_modules())
    unknown = sorted(layer for layer in keys if layer not in modules)
    if unknown:
        raise UserError(
            f"{folder} does not fit the base model: it has no layer {', '.join(unknown[:3])}.\n"
            "  Fix: name the base that the adapter was trained on."
        )
    low_rank = {
        f"{layer}.weight": _low_rank(source, parts, scale, layer, modules[layer])
        for layer, parts in keys.items()
    }
    return Trained(whole, low_rank)


def _split(key: str) -> tuple[str, str]:
    """Return the layer and the part that a key of an adapter names."""
    name = key.removeprefix(_PREFIX)
    for part in _PARTS:
        if name.endswith(f".{part}"):
            return name.removesuffix(f".{part}"), part
    layer, _, part = name.rpartition(".")
    return layer, part


def _low_rank(source: Stored, keys: dict[str, str], scale: float, name: str, layer: Any) -> LowRank:
    transposed = isinstance(layer, Conv1D | torch.nn.Embedding)
    if transposed and "magnitude" in keys:
        raise UserError(
            f"DoRA of {name}, a layer of type {type(layer).__name__}, cannot be merged.\n"
            "  Fix: leave it out of method.target_modules, or train without method.dora."
        )
    return LowRank(source, keys, scale, transposed)
