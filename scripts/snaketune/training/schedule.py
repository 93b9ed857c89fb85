"""The learning rate of each iteration: linear warm-up, then a cosine to zero, as in XTuner."""

import math

_START = 1e-5
"""The first iteration's share of the peak, where there is a warm-up of several iterations."""


def learning_rate(iteration: int, total: int, peak: float, warmup_ratio: float) -> float:
    """Return the learning rate of an iteration, numbered from 1.

    Args:
        total: Iterations of the whole run; warm-up takes int(warmup_ratio * total) of them.
        peak: Where warm-up ends.
    """
    done, warmup = iteration - 1, int(warmup_ratio * total)
    if done < warmup:
        share = done / (warmup - 1) if warmup > 1 else 1.0
        return peak * (_START + (1 - _START) * share)
    return peak * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (total - warmup)))
