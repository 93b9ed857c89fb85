"""What a single change brought and what it cost, in words with figures."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from snaketune.comparison.collect import Collected
from snaketune.comparison.figures import (
    MEMORY,
    OF_DEVICE,
    SPEED,
    TIMED,
    distance,
    label,
    number,
    told,
    wanted,
)
from snaketune.comparison.groups import Group
from snaketune.experiment.probe_kinds import DEGENERATION_METRICS, HELDOUT_ANSWERS
from snaketune.experiment.settings import differing, shown, single_change
from snaketune.scoring.significance import Measurement, differs_significantly, rule_of

COST = ("training_seconds", *MEMORY)


@dataclass(frozen=True)
class Remark:
    """One figure of a finding.

    `verdict` is better, worse, saves, costs, differs (neither), same (not beyond chance) or
    incomparable; `rule` says what decided it, where something did.
    """

    figure: str
    verdict: str
    text: str
    before: float | None = None
    after: float | None = None
    rule: str = ""


@dataclass(frozen=True)
class Finding:
    """Two groups of runs that differ in one setting."""

    start: str
    end: str
    key: str
    before: str
    after: str
    remarks: tuple[Remark, ...]


def find(groups: Sequence[Group]) -> list[Finding]:
    """Return a finding for each two groups with a single change and figures to compare."""
    found = []
    for one, other in itertools.combinations(groups, 2):
        key = single_change(one.first.settings, other.first.settings)
        if key is None or not (one.trained and other.trained):
            continue
        values = differing({"one": one.first.settings, "other": other.first.settings})[key]
        ends = shown(values["one"]), shown(values["other"])
        found.append(Finding(one.name, other.name, key, *ends, tuple(_remarks(one, other))))
    return found


def best(groups: Sequence[Group], figure: str) -> list[str]:
    """Return the names of the best in a figure, none where nothing is beyond chance worse.

    Those that cannot be told from the very best are best too.
    """
    measured = {each.name: found for each in groups if (found := each.measured(figure))}
    goal = wanted(figure, groups)
    if goal is None or len(measured) < 2:
        return []
    if incomparable(figure, [each.first for each in groups if each.name in measured]):
        return []
    top = min(measured.values(), key=lambda each: distance(goal, each.mean))
    marked = [name for name, each in measured.items() if not differs_significantly(each, top)]
    return marked if len(marked) < len(measured) else []


def _remarks(one: Group, other: Group) -> list[Remark]:
    remarks = [_quality(figure, one, other) for figure in (*_probes(one), "heldout_loss")]
    remarks += [_cost(figure, one, other) for figure in COST]
    if len(one.members) == len(other.members) == 1:
        remarks.append(_answers(one.first, other.first))
    return [remark for remark in remarks if remark]


def _probes(group: Group) -> list[str]:
    """Return the probes that any of its runs has, as figures."""
    return list(dict.fromkeys(f"probe:{name}" for run in group.members for name in run.probes))


def _quality(figure: str, one: Group, other: Group) -> Remark | None:
    before, after = one.measured(figure), other.measured(figure)
    if before is None or after is None:
        return None
    if reason := incomparable(figure, [*one.members, *other.members]):
        return _beside(figure, before, after, reason)
    goal = wanted(figure, [one, other])
    verdict, words = _compared(figure, before, after, goal)
    if verdict == "better" and figure.startswith("probe:"):
        words += _cure(figure, one, before, after)
    rule = rule_of(before, after)
    return Remark(figure, verdict, words, before.mean, after.mean, rule)


def _beside(figure: str, before: Measurement, after: Measurement, reason: str) -> Remark:
    """Return two figures that cannot be compared, and why."""
    ends = f"{label(figure)} {told(figure, before)}, and {told(figure, after)}"
    return Remark(figure, "incomparable", f"{ends}: {reason}", before.mean, after.mean)


def _compared(
    figure: str, before: Measurement, after: Measurement, goal: float | None
) -> tuple[str, str]:
    """Return the verdict on a change and the words for it."""
    ends = f"{told(figure, before)} → {told(figure, after)}"
    if not differs_significantly(before, after):
        return "same", f"{label(figure)} {ends}"
    moves = "rises" if after.mean > before.mean else "falls"
    words = f"{label(figure)} {moves}: {ends}, beyond {rule_of(before, after)}"
    if goal is None:
        return "differs", words
    nearer = abs(goal - after.mean) < abs(goal - before.mean)
    return ("better" if nearer else "worse"), words


def _cure(figure: str, one: Group, before: Measurement, after: Measurement) -> str:
    """Return words for a harm that training did and the change undoes, judged by the base model."""
    name = figure.removeprefix("probe:")
    probe = next(found.probes[name] for found in one.members if name in found.probes)
    base = Measurement((probe["base"]["value"],), probe["base"]["low"], probe["base"]["high"])
    goal = probe["wanted"]
    harmed = differs_significantly(base, before) and abs(goal - before.mean) > abs(goal - base.mean)
    if not harmed:
        return ""
    if not differs_significantly(base, after):
        return f"; cured: not to be told from the base model's {told(figure, base)}"
    if abs(goal - after.mean) > abs(goal - base.mean):
        return f"; lessened, not cured: the base model has {told(figure, base)}"
    return f"; cured, and better than the base model's {told(figure, base)}"


def incomparable(figure: str, variants: Sequence[Collected]) -> str:
    """Return why a figure of these variants cannot be compared, empty if it can.

    The held-out rows come from a variant's own data, and repetition is of all of its answers.
    """
    if figure in OF_DEVICE:
        devices = {found.chosen["device"] for found in variants if "device" in found.chosen}
        if len(devices) > 1:
            return "on different devices"
        slow = [found.name for found in variants if figure in TIMED and found.disturbed]
        return f"something else used the machine during {' and '.join(slow)}" if slow else ""
    name = figure.removeprefix("probe:").partition(".")[0]
    if name in ("heldout_loss", HELDOUT_ANSWERS):
        return "" if same_rows(variants) else "of different held-out rows"
    if name not in DEGENERATION_METRICS:
        return ""
    counts = {found.probes[name]["merged"]["n"] for found in variants if name in found.probes}
    probes = {probe.partition(".")[0] for found in variants for probe in found.probes}
    same = len(counts) == 1 and (HELDOUT_ANSWERS not in probes or same_rows(variants))
    return "" if same else "of answers to different prompts"


def same_rows(variants: Sequence[Collected]) -> bool:
    """Tell whether held-out losses are of the same tokens."""
    ids = {found.ids["data"] for found in variants}
    digests = {found.heldout_sha256 for found in variants}
    return len(ids) == 1 or (len(digests) == 1 and "" not in digests)


def _cost(figure: str, one: Group, other: Group) -> Remark | None:
    before, after = one.measured(figure), other.measured(figure)
    if before is None or after is None or not before.mean:
        return None
    if reason := incomparable(figure, [*one.members, *other.members]):
        return _beside(figure, before, after, reason + _paces(figure, one, other))
    ends = f"{told(figure, before)} → {told(figure, after)}"
    rule = rule_of(before, after)
    times = after.mean / before.mean
    if figure == "training_seconds":
        words = f"training took {times:.2f} times as long ({ends}){_for_tokens(one, other)}"
    else:
        words = f"{label(figure)} {ends} ({100 * (times - 1):+.0f} %)"
    verdict = (
        "same" if not differs_significantly(before, after) else "costs" if times > 1 else "saves"
    )
    return Remark(figure, verdict, words, before.mean, after.mean, rule)


def _paces(figure: str, one: Group, other: Group) -> str:
    """Return words for the speed of middle iterations, which a disturbance in parts leaves."""
    runs = [run for group in (one, other) for run in group.trained]
    if figure not in TIMED or not all(run.pace for run in runs):
        return ""
    before, after = (
        statistics.fmean(run.pace["median_tokens_per_second"] for run in group.trained)
        for group in (one, other)
    )
    return (
        f"; in the middle iteration {number(SPEED[0], before)} → {number(SPEED[0], after)} tokens/s"
    )


def _for_tokens(one: Group, other: Group) -> str:
    """Return words for a difference in tokens, which explains one in time."""
    before, after = one.measured("tokens"), other.measured("tokens")
    speeds = one.measured(SPEED[0]), other.measured(SPEED[0])
    if not before or not after or before.mean == after.mean or not (speeds[0] and speeds[1]):
        return ""
    return (
        f", for {after.mean / before.mean:.2f} times the tokens "
        f"({told(SPEED[0], speeds[0])} → {told(SPEED[0], speeds[1])} tokens/s)"
    )


def _answers(one: Collected, other: Collected) -> Remark | None:
    equal, both = equal_answers(one, other)
    if not both:
        return None
    text = f"{equal} of {both} answers to the same prompts are equal word for word"
    return Remark("answers", "same" if equal == both else "differs", text)


def equal_answers(one: Collected, other: Collected) -> tuple[int, int]:
    """Return how many answers of two merged models are equal, and how many prompts both have."""
    theirs = {row["prompt"]: row["merged"] for row in other.answers}
    both = [row for row in one.answers if row["prompt"] in theirs]
    return sum(row["merged"] == theirs[row["prompt"]] for row in both), len(both)


def to_json(finding: Finding) -> dict[str, Any]:
    """Return a finding as report.json tells it."""
    ends = {"from": finding.start, "to": finding.end, "key": finding.key}
    remarks = [asdict(remark) for remark in finding.remarks]
    return ends | {"before": finding.before, "after": finding.after, "remarks": remarks}
