"""What a run will need, told before it starts and compared afterwards."""

from typing import Any

import torch

from snaketune.experiment.schema import Train
from snaketune.models.loss import CHUNK
from snaketune.models.memory import MemoryEstimate, needed_memory
from snaketune.models.packed import causal_model, has_plain_head
from snaketune.models.trainable import count_trained
from snaketune.training.metrics_callback import peak_memory


def estimate(model: Any, train: Train, tokens: int) -> MemoryEstimate:
    """What training a loaded model will take.

    Args:
        tokens: Of the largest micro-batch.
    """
    config = model.config.get_text_config()
    size = torch.finfo(model.dtype).bits // 8
    weights = size * sum(p.numel() for p in model.parameters())
    names = ("hidden_size", "num_hidden_layers", "vocab_size")  # GPT-2 has them by other names
    sizes = {name: getattr(config, name) for name in names}
    sizes["intermediate_size"] = getattr(config, "intermediate_size", None)
    return needed_memory(
        sizes,
        tokens=tokens,
        logits=CHUNK if has_plain_head(causal_model(model)) else tokens,
        held=peak_memory().peak_memory_bytes,
        trained=count_trained(model),
        optimizer=train.optimizer,
        size=size,
        # on a CPU oneDNN's kernels take about as much again as the weights they multiply with
        kernels=0 if torch.cuda.is_available() else weights,
    )
