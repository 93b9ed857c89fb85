"""When is a difference one? The only place that decides what is beyond chance.

* Both sides repeated with other seeds: Welch's t-test, 95 %, on the means.
* One side repeated, the other run once: the 95 % prediction interval of one more run.
* Both run once, a probe: the two 95 % intervals must not overlap.
* Both run once, time or memory: the difference must exceed a share that runs of the same settings
  differ by on one machine.
* Both run once, the held-out loss: the difference must exceed the margin by which over-fitting is
  told, 0.02 nats or, on few tokens, 1 / sqrt(tokens).
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
}
"""The share of a figure that one run each cannot tell from chance; of other figures none."""

_RISE = 0.02
"""Of the held-out loss, in nats: 2 % of the perplexity."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measured:
    """One figure of one variant, or of the same variant with several seeds.

    Args:
        values: One for each run, at least one.
        low: The lower end of a single run's own interval, where it has one.
        high: The upper end.
        margin: What single runs without an interval differ by, in the figure's unit.
        rule: The words for it.
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
        """The standard deviation of the runs, as of a sample; None of a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def single(figure: str, value: float) -> Measured:
    """Return a figure of a single run, such as its time, with what it may vary by."""
    share = NOISE.get(figure)
    if share is None:
        return Measured((value,))
    words = f"the {100 * share:.0f} % that one run each cannot tell from chance"
    return Measured((value,), margin=share * abs(value), rule=words)


def loss_margin(tokens: int) -> float:
    """Return how much the held-out loss may rise by chance: losses of tokens deviate by about 1."""
    return max(_RISE, tokens**-0.5) if tokens else _RISE


def heldout(loss: float, tokens: int) -> Measured:
    """Return a single run's held-out loss with what it may vary by on so many tokens."""
    margin = loss_margin(tokens)
    words = f"the {margin:.2g} that one run each on {tokens:,} tokens cannot tell from chance"
    return Measured((loss,), margin=margin, rule=words)


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
    return abs(one.mean - other.mean) > max(one.margin, other.margin)


def how_judged(one: Measured, other: Measured) -> str:
    """Return the words for the rule that `apart` takes."""
    if one.deviation is not None or other.deviation is not None:
        return "the spread of the seeds"
    if one.low is not None or other.low is not None:
        return "the intervals"
    return max(one, other, key=lambda each: each.margin).rule


def _welch(one: Measured, other: Measured) -> bool:
    if not one.deviation and not other.deviation:
        return one.mean != other.mean
    found = stats.ttest_ind(one.values, other.values, equal_var=False)
    return bool(found.pvalue < 1 - CONFIDENCE)


def _beyond_prediction(repeated: Measured, value: float) -> bool:
    runs, deviation = len(repeated.values), repeated.deviation or 0.0
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, runs - 1))
    return abs(value - repeated.mean) > quantile * deviation * math.sqrt(1 + 1 / runs)
