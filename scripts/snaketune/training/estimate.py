"""What a run will need, told before it starts and compared afterwards: memory, disk, iterations."""

from dataclasses import dataclass
from typing import Any

import torch

from snaketune.experiment.schema import Train
from snaketune.models.adapter import count_trained
from snaketune.models.loss import CHUNK
from snaketune.models.packed import causal_model, has_plain_head
from snaketune.training.progress import peak_memory, shown_memory

MOMENTS = {"adamw": 8, "paged_adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2}
"""Bytes of optimizer state for each trained weight."""

_HIDDEN, _INTERMEDIATE = 16, 5
"""How many tensors of a token's hidden and intermediate size a layer keeps for its backward pass:
counted in a Llama layer with LoRA; norms keep fp32 copies, which count twice."""


@dataclass(frozen=True)
class Estimate:
    """Bytes at the peak of an iteration, on one device."""

    resident: int
    activations: int
    activations_checkpointed: int

    def total(self, checkpointed: bool) -> int:
        """Return the whole peak."""
        return self.resident + (self.activations_checkpointed if checkpointed else self.activations)


def estimate(model: Any, train: Train, tokens: int) -> Estimate:
    """Return what training a loaded model will take.

    Args:
        tokens: Of the largest micro-batch.
    """
    config = model.config.get_text_config()
    held = shown_memory(peak_memory())
    size = torch.finfo(model.dtype).bits // 8
    intermediate = getattr(config, "intermediate_size", 4 * config.hidden_size)  # GPT-2 has none
    layer = size * tokens * (_HIDDEN * config.hidden_size + _INTERMEDIATE * intermediate)
    rows = CHUNK if has_plain_head(causal_model(model)) else tokens
    logits = rows * config.vocab_size * 10
    # on a CPU oneDNN's kernels take about as much again as the weights they multiply with
    kernels = 0 if torch.cuda.is_available() else size * sum(p.numel() for p in model.parameters())
    return Estimate(
        resident=held + count_trained(model) * (4 + MOMENTS[train.optimizer]) + logits + kernels,
        activations=config.num_hidden_layers * layer,
        activations_checkpointed=layer
        + config.num_hidden_layers * size * tokens * config.hidden_size,
    )
