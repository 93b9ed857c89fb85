"""Variants that are equal but for the seed are one group: mean, spread, and how many runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from snaketune.comparison.collect import Collected
from snaketune.experiment.settings import SEED, changed
from snaketune.scoring.significance import Measurement, loss_measured_once, measured_once

_SEED_IN_NAME = re.compile(r"(?:^|_)seed-\d+")
"""How a matrix names a variant's seed."""


@dataclass(frozen=True)
class Group:
    """Runs of the same settings, with one seed each."""

    name: str
    members: tuple[Collected, ...]

    @property
    def first(self) -> Collected:
        """The run that stands for the settings of all."""
        return self.members[0]

    @property
    def trained(self) -> list[Collected]:
        """The runs that have figures."""
        return [found for found in self.members if found.training]

    def measured(self, figure: str) -> Measurement | None:
        """Return a figure over the runs that have it, None if none has.

        Args:
            figure: A key of train.json, `heldout_loss`, or `probe:NAME`.
        """
        having = {each.name: value_of(each, figure) for each in self.members}
        values = [value for value in having.values() if value is not None]
        if len(values) != 1:
            return Measurement(tuple(values)) if values else None
        [found] = [each for each in self.members if having[each.name] is not None]
        return _measured_once(found, figure, values[0])


def value_of(found: Collected, figure: str) -> float | None:
    """Return a variant's figure, None where it has none."""
    if figure.startswith("probe:"):
        probe = found.probes.get(figure.removeprefix("probe:"))
        return probe["merged"]["value"] if probe else None
    if figure == "heldout_loss":
        return found.heldout["merged"]["loss"] if found.heldout else None
    if figure.endswith("_bytes") and figure in found.disk:
        return found.disk[figure]
    return found.training.get(figure)


def _measured_once(found: Collected, figure: str, value: float) -> Measurement:
    if figure == "heldout_loss":
        return loss_measured_once(value, found.heldout["merged"]["supervised_tokens"])
    if figure.startswith("probe:"):
        merged = found.probes[figure.removeprefix("probe:")]["merged"]
        return Measurement((value,), merged["low"], merged["high"])
    return measured_once(figure, value)


def grouped(variants: Sequence[Collected], study: str) -> list[Group]:
    """Return the groups in the order of their first variants."""
    groups: list[list[Collected]] = []
    for found in variants:
        for group in groups:
            seeds = [each.settings[SEED] for each in group]
            same = not changed(group[0].settings, found.settings)
            if same and found.settings[SEED] not in seeds:
                group.append(found)
                break
        else:
            groups.append([found])
    return [Group(_named(group, study), tuple(group)) for group in groups]


def _named(members: list[Collected], study: str) -> str:
    if len(members) == 1:
        return members[0].name
    names = {_SEED_IN_NAME.sub("", found.name).strip("_") for found in members}
    name = names.pop() if len(names) == 1 else members[0].name
    return f"{name or study} ({len(members)} seeds)"
