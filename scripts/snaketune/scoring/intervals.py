"""Confidence intervals of shares and means: pure functions of figures, without torch."""

import math
import statistics
from collections.abc import Sequence

import numpy as np

_FEW = 6


def share(hits: Sequence[bool]) -> dict[str, float]:
    """Return the share of hits with its 95 % Wilson score interval, and how many there were.

    Args:
        hits: At least one.

    Returns:
        `value`, `low` and `high` in 0..1, and `n`.
    """
    low, high = _wilson(sum(hits), len(hits))
    return {"value": sum(hits) / len(hits), "low": low, "high": high, "n": len(hits)}


def mean(values: Sequence[float]) -> dict[str, float]:
    """Return the mean of figures in 0..1 with its 95 % bootstrap interval, and how many there were.

    The interval is the percentile one, of 9,999 seeded resamples. Resampling tells nothing of what
    was not seen: of equal figures, and of fewer than six, whose whole range has the mean in it less
    often than 95 % of the time (1 - 2^(1 - n) of a symmetric distribution), the interval is that
    of a share. It is as wide or wider, as no figures in 0..1 vary more than hits of the same mean.

    Args:
        values: At least one.

    Returns:
        `value`, `low` and `high` in 0..1, and `n`.
    """
    total, count = math.fsum(values), len(values)
    if count < _FEW or len(set(values)) == 1:
        low = _wilson(math.floor(total + 1e-9), count)[0]
        high = _wilson(math.ceil(total - 1e-9), count)[1]
    else:
        low, high = _bootstrap(values)
    return {"value": total / count, "low": low, "high": high, "n": count}


def average(values: Sequence[float]) -> dict[str, float]:
    """Return the mean of any figures with Student's 95 % interval, and how many there were.

    The interval of a single figure is that figure: it tells nothing of others.

    Args:
        values: At least one, such as seconds.

    Returns:
        `value`, `low` and `high` in their unit, and `n`.
    """
    count, middle = len(values), math.fsum(values) / len(values)
    if count == 1:
        return {"value": middle, "low": middle, "high": middle, "n": 1}
    from scipy.stats import t

    spread = statistics.stdev(values) / math.sqrt(count)
    half = float(t.ppf(0.975, count - 1)) * spread
    return {"value": middle, "low": middle - half, "high": middle + half, "n": count}


def _wilson(hits: int, count: int) -> tuple[float, float]:
    from scipy.stats import binomtest  # half a second

    found = binomtest(hits, count).proportion_ci(confidence_level=0.95, method="wilson")
    return float(found.low), float(found.high)


def _bootstrap(values: Sequence[float]) -> tuple[float, float]:
    from scipy.stats import bootstrap

    found = bootstrap(
        [values],
        np.mean,
        confidence_level=0.95,
        method="percentile",
        batch=1000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
