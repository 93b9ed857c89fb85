"""Confidence intervals of shares and means: pure functions of numbers, without torch."""

import math
import statistics
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95

_FEWEST_TO_RESAMPLE = 6
"""The range of n values of a symmetric distribution misses the mean with probability 2^(1 - n). A
bootstrap interval is never wider than that range, so below six values it cannot reach 95 %."""

_RESAMPLES_AT_A_TIME = 1000
"""scipy draws all 9,999 resamples as one array unless it is given a batch size."""


def share(hits: Sequence[bool]) -> dict[str, float]:
    """The share of hits with its 95 % Wilson score interval.

    Args:
        hits: At least one.

    Returns:
        `value`, `low` and `high` in 0..1, and the number of hits and misses, `n`.
    """
    low, high = _wilson(sum(hits), len(hits))
    return {"value": sum(hits) / len(hits), "low": low, "high": high, "n": len(hits)}


def mean(values: Sequence[float]) -> dict[str, float]:
    """The mean of values in 0..1 with its 95 % percentile bootstrap interval, seeded.

    Resampling knows nothing of values that were not observed. Fewer than six values, or equal ones,
    therefore get the Wilson interval of a share with the same mean. It is at least as wide as
    theirs: no values in 0..1 vary more than hits and misses of the same mean.

    Args:
        values: At least one.

    Returns:
        `value`, `low` and `high` in 0..1, and the number of values, `n`.
    """
    total, count = math.fsum(values), len(values)
    if count < _FEWEST_TO_RESAMPLE or len(set(values)) == 1:
        # 1e-9: the sum of ten tenths is not quite 1
        low = _wilson(math.floor(total + 1e-9), count)[0]
        high = _wilson(math.ceil(total - 1e-9), count)[1]
    else:
        low, high = _bootstrap(values)
    return {"value": total / count, "low": low, "high": high, "n": count}


def average(values: Sequence[float]) -> dict[str, float]:
    """The mean of any numbers with Student's 95 % interval; that of a single number is itself.

    Args:
        values: At least one, such as seconds.

    Returns:
        `value`, `low` and `high` in their unit, and the number of values, `n`.
    """
    count, center = len(values), math.fsum(values) / len(values)
    if count == 1:
        return {"value": center, "low": center, "high": center, "n": 1}
    from scipy.stats import t

    standard_error = statistics.stdev(values) / math.sqrt(count)
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * standard_error
    return {"value": center, "low": center - half, "high": center + half, "n": count}


def _wilson(hits: int, count: int) -> tuple[float, float]:
    from scipy.stats import binomtest  # importing it takes half a second

    interval = binomtest(hits, count).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def _bootstrap(values: Sequence[float]) -> tuple[float, float]:
    from scipy.stats import bootstrap

    interval = bootstrap(
        [values],
        np.mean,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=_RESAMPLES_AT_A_TIME,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)
