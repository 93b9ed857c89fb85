"""Two experiments in the shortest form: the settings, data and results in which they differ."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from snaketune.comparison.collect import Collected
from snaketune.comparison.figures import COSTS, COUNTS, label, told, wanted
from snaketune.comparison.findings import equal_answers, incomparable, same_rows
from snaketune.comparison.groups import Group
from snaketune.experiment.settings import differing
from snaketune.scoring.significance import differs_significantly

Row = dict[str, Any]

_OF_DATA = {
    "rows_read": "rows read",
    "samples_kept": "samples kept",
    "samples_heldout": "samples held out",
    "dropped": "samples dropped",
    "truncated": "samples cut",
    "tokens_cut": "tokens cut",
    "samples_per_epoch": "samples an epoch",
    "tokens_per_epoch": "tokens an epoch",
}
"""The figures of a data source, summed over all sources of an experiment."""


def compare_pair(one: Collected, two: Collected) -> Row:
    """Return what differs between two experiments, as plain values.

    Results are those that are there on both sides; `beyond_chance` says whether a difference is
    more than what chance explains, and is None where it cannot be judged; `incomparable` why not.
    """
    sides = {"one": one, "two": two}
    found = differing({side: each.settings for side, each in sides.items()})
    return {
        "experiments": {side: each.experiment.name for side, each in sides.items()},
        "states": {side: each.state for side, each in sides.items()},
        "todo": {side: each.todo for side, each in sides.items()},
        "settings": [{"key": key, **values} for key, values in found.items()],
        "data": _data(one, two),
        "heldout_comparable": same_rows([one, two]),
        "results": [row for figure in _figures(one, two) if (row := _result(figure, one, two))],
        "answers": _answers(one, two),
    }


def _data(one: Collected, two: Collected) -> list[Row]:
    """Return the figures of the processed data that differ; none where one is not processed."""
    if one.ids["data"] == two.ids["data"] or not (one.data and two.data):
        return []
    figures: dict[str, Callable[[Mapping[str, Any]], Any]] = {"sources": _sources}
    figures |= {name: partial(_sum, key=key) for key, name in _OF_DATA.items()}
    figures |= {"packs": lambda data: data["train"]["packs"]}
    rows = [{"figure": k, "one": f(one.data), "two": f(two.data)} for k, f in figures.items()]
    return [row for row in rows if row["one"] != row["two"]]


def _sources(data: Mapping[str, Any]) -> str:
    return ", ".join(source["source"] for source in data["sources"])


def _sum(data: Mapping[str, Any], key: str) -> int:
    return sum(source[key] for source in data["sources"])


def _figures(one: Collected, two: Collected) -> list[str]:
    probes = [f"probe:{name}" for name in one.probes if name in two.probes]
    return ["heldout_loss", *probes, *COSTS]


def _result(figure: str, one: Collected, two: Collected) -> Row | None:
    """Return a figure that both have; a count only where it differs."""
    groups = [Group(each.experiment.name, (each,)) for each in (one, two)]
    first, second = (group.measured(figure) for group in groups)
    if first is None or second is None or (figure in COUNTS and first.mean == second.mean):
        return None
    reason = incomparable(figure, [one, two])
    judged = not reason and figure not in COUNTS
    return {
        "figure": figure,
        "label": label(figure),
        "one": first.mean,
        "two": second.mean,
        "told": {"one": told(figure, first), "two": told(figure, second)},
        "difference": None if reason else second.mean - first.mean,
        "incomparable": reason,
        "beyond_chance": differs_significantly(first, second) if judged else None,
        "wanted": wanted(figure, groups) if figure.startswith("probe:") else None,
    }


def _answers(one: Collected, two: Collected) -> Row | None:
    """Return how many answers of the merged models to the same prompts are the same."""
    same, of = equal_answers(one, two)
    return {"same": same, "of": of} if of else None
