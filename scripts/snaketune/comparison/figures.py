"""The figures that are compared: what each is called, what is wanted of it, how it is printed."""

from collections.abc import Sequence

from snaketune.comparison.groups import Group
from snaketune.core.pages import count, mib, minutes
from snaketune.scoring.significance import Measurement

MEMORY = ("peak_allocated_bytes", "peak_reserved_bytes", "peak_rss_bytes")
DISK = ("checkpoints_bytes", "adapter_bytes", "merged_bytes")
SPEED = ("tokens_per_second", "supervised_tokens_per_second")
TIMED = ("training_seconds", *SPEED)
OF_DEVICE = (*TIMED, *MEMORY)
"""Figures that another device changes."""

COUNTS = ("iterations", "updates", "tokens", "supervised_tokens")
COSTS = ("training_seconds", *COUNTS, *SPEED, *MEMORY, *DISK)
"""The columns of the page's table of costs, in their order."""

_LABELS = {
    "heldout_loss": "held-out loss",
    "training_seconds": "training time",
    "iterations": "iterations",
    "updates": "updates",
    "tokens": "tokens",
    "supervised_tokens": "supervised tokens",
    "tokens_per_second": "tokens/s",
    "supervised_tokens_per_second": "supervised tokens/s",
    "peak_allocated_bytes": "peak GPU memory allocated",
    "peak_reserved_bytes": "peak GPU memory reserved",
    "peak_rss_bytes": "peak resident memory",
    "checkpoints_bytes": "checkpoints on disk",
    "adapter_bytes": "adapter on disk",
    "merged_bytes": "merged model on disk",
}


def label(figure: str) -> str:
    """Return what a figure is called; a probe is called by its own name."""
    return _LABELS.get(figure) or figure.removeprefix("probe:")


def wanted(figure: str, groups: Sequence[Group]) -> float | None:
    """Return the value that would be best, None for a figure without better and worse."""
    if figure.startswith("probe:"):
        name = figure.removeprefix("probe:")
        members = [found for each in groups for found in each.members if name in found.probes]
        goals = {found.probes[name]["wanted"] for found in members}
        return goals.pop() if len(goals) == 1 else None
    if figure in SPEED:
        return float("inf")
    return None if figure in COUNTS else 0.0


def distance(goal: float, value: float) -> float:
    """Return how far a value is from the best; the smaller the better, also where more is best."""
    return -value if goal == float("inf") else abs(goal - value)


def told(figure: str, measured: Measurement) -> str:
    """Return a figure as it is printed, with its interval or its spread over several runs."""
    middle = number(figure, measured.mean)
    if measured.deviation is not None:
        return f"{middle} ± {number(figure, measured.deviation)}"
    if measured.low is not None and measured.high is not None:
        return f"{middle} {interval(measured.low, measured.high)}"
    return middle


def interval(low: float, high: float) -> str:
    """Return the ends of an interval of shares, as percentages, or of other values."""
    if low >= 0 and high <= 1:
        return f"({100 * low:.0f}–{100 * high:.0f})"
    return f"({low:.3g}–{high:.3g})"


def number(figure: str, value: float) -> str:
    """Return a value with its unit, rounded to what a reader compares."""
    if figure == "training_seconds":
        return f"{value:.1f} s" if value < 10 else minutes(value)
    if figure.endswith("_bytes"):
        return mib(value) if value >= 10 * 2**20 or not value else f"{value / 2**20:.2f} MiB"
    if figure.endswith("_per_second"):
        return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
    if figure.endswith("loss"):
        return f"{value:.3f}"
    if figure in COUNTS:
        return count(round(value))
    return f"{100 * value:.0f} %" if 0 <= value <= 1 else f"{value:.3g}"
