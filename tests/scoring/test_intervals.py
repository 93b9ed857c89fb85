"""Each interval against its reference package, or against a formula computed by hand."""

import math
import random

import numpy as np
import pytest
from scipy.stats import bootstrap

from snaketune.scoring.intervals import average, mean, share


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's interval by the formula of his paper (1927)."""
    z = 1.959963984540054
    p = hits / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return center - half, center + half


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (1, 20), (7, 12), (20, 20), (1, 1)])
def test_share_has_wilson_interval(hits, n):
    result = share([True] * hits + [False] * (n - hits))
    assert (result["value"], result["n"]) == (hits / n, n)
    low, high = wilson(hits, n)
    assert (result["low"], result["high"]) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-12)


def plain_bootstrap(values: list[float]) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of 20,000 resampled means, in plain Python."""
    draw = random.Random(1)
    means = sorted(sum(draw.choices(values, k=len(values))) / len(values) for _ in range(20_000))
    return means[500], means[-501]


@pytest.mark.parametrize("count", [6, 9, 40])
def test_mean_has_bootstrap_interval(count):
    draw = random.Random(count)
    values = [draw.random() for _ in range(count)]
    result = mean(values)
    assert (result["value"], result["n"]) == (pytest.approx(sum(values) / count), count)
    reference = bootstrap(
        (np.array(values),), np.mean, method="percentile", rng=np.random.default_rng(0), batch=1000
    ).confidence_interval
    assert (result["low"], result["high"]) == pytest.approx((reference.low, reference.high))
    assert (result["low"], result["high"]) == pytest.approx(plain_bootstrap(values), abs=0.01)
    assert result == mean(values)


@pytest.mark.parametrize(
    ("values", "hits"),
    [
        ([0.4], (0, 1)),
        ([0.0] * 20, (0, 0)),
        ([1.0] * 20, (20, 20)),
        ([0.1] * 10, (1, 1)),  # the sum of ten tenths is not quite 1
        ([0.55] * 8, (4, 5)),
        ([0.8, 0.9], (1, 2)),
        ([0.2, 0.4, 0.6, 0.3, 0.2], (1, 2)),
    ],
)
def test_few_or_equal_values_have_wilson_interval(values, hits):
    result = mean(values)
    assert (result["value"], result["n"]) == (pytest.approx(np.mean(values)), len(values))
    low, high = wilson(hits[0], len(values))[0], wilson(hits[1], len(values))[1]
    assert (result["low"], result["high"]) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-12)


def test_intervals_of_few_values_cover_the_mean():
    draw = random.Random(0)
    for count in (2, 3, 5):
        result = [mean([draw.random() for _ in range(count)]) for _ in range(200)]
        assert sum(interval["low"] <= 0.5 <= interval["high"] for interval in result) >= 190


@pytest.mark.parametrize(
    ("values", "half"),
    [
        ([1.0, 2.0, 3.0], 4.302653 / math.sqrt(3)),  # Student's t of 2 degrees, spread 1
        ([5.0, 5.0], 0.0),
        ([7.0], 0.0),
        ([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 2.364624 * math.sqrt(32 / 7) / math.sqrt(8)),
    ],
)
def test_average_has_student_interval(values, half):
    result = average(values)
    center = sum(values) / len(values)
    assert (result["value"], result["n"]) == (pytest.approx(center), len(values))
    ends = (center - half, center + half)
    assert (result["low"], result["high"]) == pytest.approx(ends, abs=1e-5)
