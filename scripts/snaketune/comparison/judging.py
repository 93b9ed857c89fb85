"""When is a difference one? The only place that decides what is beyond chance.

* Both sides repeated with other seeds: Welch's t-test, 95 %, on the means.
* One side repeated, the other run once: the 95 % prediction interval of one more run.
* Both run once, a probe: the two 95 % intervals must not overlap.
* Both run once, any other figure: the difference must exceed a share that runs of the same
  settings are known to differ by on one machine.
"""

import math
import statistics
from dataclasses import dataclass

from scipy import stats

NOISE = {
    "training_seconds": 0.10,
    "tokens_per_second": 0.10,
    "supervised_tokens_per_second": 0.10,
    "peak_rss_bytes": 0.05,
    "peak_allocated_bytes": 0.02,
    "peak_reserved_bytes": 0.05,
    "checkpoints_bytes": 0.02,
    "adapter_bytes": 0.02,
    "merged_bytes": 0.02,
    "heldout_loss": 0.01,
}
"""The share of a figure that one run each cannot tell from chance; of other figures none."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measured:
    """One figure of one variant, or of the same variant with several seeds.

    Args:
        values: One for each run, at least one.
        low: The lower end of a single run's own interval, where it has one.
        high: The upper end.
        noise: The share that single runs without an interval differ by.
    """

    values: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    noise: float = 0.0

    @property
    def mean(self) -> float:
        """The mean of the runs."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the runs, as of a sample; None of a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def apart(one: Measured, other: Measured) -> bool:
    """Return whether two figures differ beyond what chance explains, as this file's head says."""
    if one.deviation is not None and other.deviation is not None:
        return _welch(one, other)
    if one.deviation is not None or other.deviation is not None:
        repeated, single = (one, other) if one.deviation is not None else (other, one)
        return _beyond_prediction(repeated, single.mean)
    if one.low is not None and one.high is not None:
        if other.low is not None and other.high is not None:
            return one.high < other.low or other.high < one.low
        return not one.low <= other.mean <= one.high
    larger = max(abs(one.mean), abs(other.mean))
    return abs(one.mean - other.mean) > max(one.noise, other.noise) * larger


def how_judged(one: Measured, other: Measured) -> str:
    """Return the words for the rule that `apart` takes."""
    if one.deviation is not None or other.deviation is not None:
        return "the spread of the seeds"
    if one.low is not None or other.low is not None:
        return "the intervals"
    noise = max(one.noise, other.noise)
    return f"the {100 * noise:.0f} % that one run each cannot tell from chance"


def _welch(one: Measured, other: Measured) -> bool:
    if not one.deviation and not other.deviation:
        return one.mean != other.mean
    found = stats.ttest_ind(one.values, other.values, equal_var=False)
    return bool(found.pvalue < 1 - CONFIDENCE)


def _beyond_prediction(repeated: Measured, value: float) -> bool:
    runs, deviation = len(repeated.values), repeated.deviation or 0.0
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, runs - 1))
    return abs(value - repeated.mean) > quantile * deviation * math.sqrt(1 + 1 / runs)
