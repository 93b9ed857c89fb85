"""The learning rate of each iteration: linear warm-up, then down to zero, as in XTuner."""

import math

from snaketune.experiment.schema import Train

_START = 1e-5
"""The first iteration's share of the peak, where there is a warm-up of several iterations."""


def learning_rate(iteration: int, total: int, train: Train) -> float:
    """The learning rate of an iteration, numbered from 1, of `total`.

    Warm-up takes `warmup_steps` updates, or int(warmup_ratio * total) iterations, and ends at the
    peak; then the rate follows half a cosine, a line, or stays.
    """
    done, warmup = iteration - 1, _warmup(total, train)
    if done < warmup:
        share = done / (warmup - 1) if warmup > 1 else 1.0
        return train.lr * (_START + (1 - _START) * share)
    share = (done - warmup) / (total - warmup)
    match train.schedule:
        case "cosine":
            return train.lr * 0.5 * (1 + math.cos(math.pi * share))
        case "linear":
            return train.lr * (1 - share)
        case "constant":
            return train.lr


def _warmup(total: int, train: Train) -> int:
    if train.warmup_steps is not None:
        return min(train.warmup_steps * train.accumulate, total)
    return int(train.warmup_ratio * total)
