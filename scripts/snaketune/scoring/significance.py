"""Which differences are significant. Nothing else decides it, so that all pages agree.

* Both sides repeated with other seeds: Welch's t-test on the means, at 95 %.
* One side repeated, the other run once: the 95 % prediction interval of one more run.
* Both run once, a probe: the two 95 % intervals must not overlap.
* Both run once, time or memory: the difference must exceed the share by which runs with the same
  settings differ on one machine.
* Both run once, the held-out loss: the difference must exceed `loss_margin`, by which over-fitting
  is detected as well.
"""

import math
import statistics
from dataclasses import dataclass

from scipy import stats

from snaketune.scoring.intervals import CONFIDENCE

RUN_TO_RUN = {
    "training_seconds": 0.10,
    "tokens_per_second": 0.10,
    "supervised_tokens_per_second": 0.10,
    "peak_rss_bytes": 0.05,
    "peak_allocated_bytes": 0.02,
    "peak_reserved_bytes": 0.05,
    "checkpoints_bytes": 0.02,
    "adapter_bytes": 0.02,
    "merged_bytes": 0.02,
}
"""The share by which a figure may differ between two runs with the same settings. Time depends on
what else the machine does; resident and reserved memory on the allocators, which round up and keep
pages; allocated memory and files on the settings alone. Other figures, such as tokens, do not vary.
"""

_SMALLEST_LOSS_MARGIN = 0.02
"""In nats: 2 % of the perplexity."""


@dataclass(frozen=True)
class Measurement:
    """A figure of one variant, or of the same variant with several seeds.

    Args:
        values: One for each run, at least one.
        low: The lower end of a single run's own interval, if it has one.
        high: The upper end.
        margin: By how much single runs without an interval may differ, in the figure's unit.
        rule: What the margin is, in words.
    """

    values: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    margin: float = 0.0
    rule: str = "rounding"

    @property
    def mean(self) -> float:
        """The mean of the runs."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation of the runs; None for a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def measured_once(figure: str, value: float) -> Measurement:
    """A figure of a single run, such as its time."""
    share = RUN_TO_RUN.get(figure)
    if share is None:
        return Measurement((value,))
    rule = f"the {100 * share:.0f} % by which single runs vary"
    return Measurement((value,), margin=share * abs(value), rule=rule)


def loss_margin(tokens: int) -> float:
    """By how much held-out losses over so many tokens may differ by chance, in nats.

    The loss of a single token has a standard deviation of about 1, so that of their mean is about
    1 / sqrt(tokens). It exceeds the constant below 2,500 tokens.
    """
    return max(_SMALLEST_LOSS_MARGIN, tokens**-0.5) if tokens else _SMALLEST_LOSS_MARGIN


def loss_measured_once(loss: float, tokens: int) -> Measurement:
    """The held-out loss of a single run, over so many supervised tokens."""
    margin = loss_margin(tokens)
    rule = f"the {margin:.2g} by which single runs vary on {tokens:,} tokens"
    return Measurement((loss,), margin=margin, rule=rule)


def differs_significantly(one: Measurement, other: Measurement) -> bool:
    """Whether chance does not explain the difference, by the rules at the head of this file."""
    if one.deviation is not None and other.deviation is not None:
        return _welch(one, other)
    if one.deviation is not None or other.deviation is not None:
        repeated, single = (one, other) if one.deviation is not None else (other, one)
        return _outside_prediction(repeated, single.mean)
    if one.low is not None and one.high is not None:
        if other.low is not None and other.high is not None:
            return one.high < other.low or other.high < one.low
        return not one.low <= other.mean <= one.high
    return abs(one.mean - other.mean) > max(one.margin, other.margin)


def rule_of(one: Measurement, other: Measurement) -> str:
    """What `differs_significantly` compares the difference with, in words."""
    if one.deviation is not None or other.deviation is not None:
        return "the spread of the seeds"
    if one.low is not None or other.low is not None:
        return "the intervals"
    return max(one, other, key=lambda measurement: measurement.margin).rule


def _welch(one: Measurement, other: Measurement) -> bool:
    if not one.deviation and not other.deviation:  # the t-test would divide by zero
        return one.mean != other.mean
    result = stats.ttest_ind(one.values, other.values, equal_var=False)
    return bool(result.pvalue < 1 - CONFIDENCE)


def _outside_prediction(repeated: Measurement, value: float) -> bool:
    runs, deviation = len(repeated.values), repeated.deviation or 0.0
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, runs - 1))
    # 1 + 1 / n: both the mean of the runs and the single run vary
    return abs(value - repeated.mean) > quantile * deviation * math.sqrt(1 + 1 / runs)
