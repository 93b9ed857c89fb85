"""The memory a training takes, from the sizes of model and batch. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snaketune.models.optimizers import OPTIMIZERS

_HIDDEN, _INTERMEDIATE = 16, 5
"""How many tensors of a token's hidden and intermediate size a layer keeps for its backward pass:
counted in a Llama layer with LoRA; norms keep fp32 copies, which count twice."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of an iteration, on one device."""

    resident: int
    activations: int
    activations_checkpointed: int

    def total(self, checkpointed: bool) -> int:
        return self.resident + (self.activations_checkpointed if checkpointed else self.activations)


def needed_memory(
    config: Mapping[str, Any],
    *,
    tokens: int,
    logits: int,
    held: int,
    trained: int,
    optimizer: str,
    size: int,
    kernels: int,
) -> MemoryEstimate:
    """What training takes.

    Args:
        config: The base model's config.json, of its text model.
        tokens: Of the largest micro-batch.
        logits: Rows of logits that are there at a time.
        held: Bytes that the process holds with the model loaded, before it trains.
        trained: Weights that training changes.
        size: Bytes of a number in the activations.
        kernels: Bytes that the device's kernels take besides.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    intermediate = config.get("intermediate_size") or 4 * hidden  # GPT-2 names none
    layer = size * tokens * (_HIDDEN * hidden + _INTERMEDIATE * intermediate)
    state = trained * (4 + OPTIMIZERS[optimizer].state_bytes) + logits * config["vocab_size"] * 10
    return MemoryEstimate(
        resident=held + state + kernels,
        activations=layers * layer,
        activations_checkpointed=layer + layers * size * tokens * hidden,
    )
