"""What an iteration must compute, against what the device can: model FLOPs utilisation."""

import time
from typing import Any

import torch


class Flops:
    """Counts the matrix products of a model's layers.

    A weight costs 2 operations for each token forward, 2 backward, and 2 more if it is trained
    itself. The output layer works on the supervised tokens alone. Attention, and what gradient
    checkpointing computes twice, is not counted.

    Args:
        rate: The device's FLOP/s in a large matrix product.
    """

    def __init__(self, model: Any, rate: float) -> None:
        head = _linear(model.get_output_embeddings())
        self.for_token = sum(_cost(layer) for layer in _linear(model) if layer not in head)
        self.for_supervised = max(map(_cost, head))  # PEFT keeps the old one beside a trained one
        self.rate = rate

    def utilisation(self, tokens: float, supervised: float, seconds: float) -> float:
        """The share of the matrix rate that an iteration reached."""
        needed = self.for_token * tokens + self.for_supervised * supervised
        return needed / seconds / self.rate


def matrix_rate(where: torch.device, dtype: torch.dtype) -> float:
    """The FLOP/s that a device reaches in a large matrix product, the best of a few."""
    size = 8192 if where.type == "cuda" else 1024
    one = torch.ones(size, size, dtype=dtype, device=where)
    seconds = min(_seconds(one, where) for _ in range(5))
    if where.type == "cuda":
        del one
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(where)
    return 2 * size**3 / seconds


def _seconds(one: torch.Tensor, where: torch.device) -> float:
    _wait(where)
    start = time.perf_counter()
    one @ one
    _wait(where)
    return time.perf_counter() - start


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def _linear(module: torch.nn.Module) -> list[torch.nn.Linear]:
    return [inner for inner in module.modules() if isinstance(inner, torch.nn.Linear)]


def _cost(layer: torch.nn.Linear) -> int:
    trained = layer.weight.requires_grad
    return (6 if trained else 4) * layer.in_features * layer.out_features
