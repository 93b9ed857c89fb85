"""report.json and table.csv of a study: every figure with the files it came from."""

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

from snaketune.comparison import findings
from snaketune.comparison.collect import Collected, to_json
from snaketune.comparison.fairness import field_values, warnings
from snaketune.comparison.figures import COSTS, COUNTS
from snaketune.comparison.groups import Group, grouped, value_of
from snaketune.experiment import Problem
from snaketune.experiment.settings import differing, shown


def build(
    study: str, variants: Sequence[Collected], mistakes: Sequence[Problem] = ()
) -> dict[str, Any]:
    """Return the content of report.json.

    Args:
        variants: At least one, in the order of the study's file.
        mistakes: Those in the study's file; the variants that have them are not among `variants`.
    """
    first, groups = variants[0].experiment, grouped(variants, study)
    alone = [Group(found.name, (found,)) for found in variants]
    figures = ["heldout_loss", *probes(variants), *COSTS]
    return {
        "study": study,
        "file": first.file.as_posix(),
        "description": first.config.description,
        "mistakes": [str(mistake) for mistake in mistakes],
        "findings": [findings.to_json(each) for each in findings.find(groups)],
        "settings": _settings(variants),
        "fields": {found.name: field_values(found) for found in variants},
        "warnings": warnings(variants),
        "best": {each: names for each in figures if (names := findings.best(alone, each))},
        "repeated": [_spread(group, figures) for group in groups if len(group.members) > 1],
        "variants": {found.name: to_json(found) for found in variants},
        "samples": equal_iterations(variants),
    }


def probes(variants: Sequence[Collected]) -> list[str]:
    """Return the probes that any variant has, as figures: `probe:NAME`."""
    return list(dict.fromkeys(f"probe:{name}" for found in variants for name in found.probes))


def equal_iterations(variants: Sequence[Collected]) -> list[dict[str, Any]]:
    """Return each prompt's answers while training, at iterations that several variants have.

    Of a study with a single trained variant, at all of its iterations.
    """
    told: dict[str, dict[int, dict[str, str]]] = {}
    for found in variants:
        for row in found.samples:
            by_iteration = told.setdefault(row["prompt"], {})
            by_iteration.setdefault(row["iteration"], {})[found.name] = row["answer"]
    least = min(2, sum(bool(found.samples) for found in variants))
    return [
        {"prompt": prompt, "iteration": iteration, "answers": answers}
        for prompt, by_iteration in told.items()
        for iteration, answers in sorted(by_iteration.items())
        if len(answers) >= least
    ]


def table(report: dict[str, Any], variants: Sequence[Collected]) -> str:
    """Return table.csv: a row a variant, the unit of each column in its name."""
    rows = [_row(report, found) for found in variants]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _settings(variants: Sequence[Collected]) -> dict[str, dict[str, Any]]:
    return differing({found.name: found.settings for found in variants})


def _spread(group: Group, figures: Sequence[str]) -> dict[str, Any]:
    """Return mean, standard deviation and number of a group's runs, for each figure."""
    measured = {figure: found for figure in figures if (found := group.measured(figure))}
    return {
        "name": group.name,
        "variants": [found.name for found in group.members],
        "figures": {
            figure: {"mean": each.mean, "deviation": each.deviation, "n": len(each.values)}
            for figure, each in measured.items()
            if figure not in COUNTS
        },
    }


def _row(report: dict[str, Any], found: Collected) -> dict[str, Any]:
    row: dict[str, Any] = {
        "variant": found.name,
        "experiment": found.experiment.name,
        "state": found.state,
    }
    row |= {key: shown(values[found.name]) for key, values in report["settings"].items()}
    row |= {figure: value_of(found, figure) for figure in COSTS}
    row |= {key: found.training.get(key) for key in ("first_loss", "last_loss")}
    row |= {f"heldout_{key}": value for key, value in found.heldout.get("merged", {}).items()}
    row["base_heldout_loss"] = found.heldout.get("base", {}).get("loss")
    for name, probe in found.probes.items():
        ends = {key: probe["merged"][key] for key in ("low", "high", "n")}
        row |= {f"probe_{name}": probe["merged"]["value"]}
        row |= {f"probe_{name}_{key}": value for key, value in ends.items()}
        row[f"base_probe_{name}"] = probe["base"]["value"]
    row |= {key.replace(" ", "_"): each for key, each in field_values(found).items()}
    row |= {key: found.chosen.get(key) for key in ("device", "processes")}
    row |= {f"{kind}_id": each for kind, each in found.ids.items()}
    return row | {f"mlflow_{key}": found.mlflow.get(key) for key in ("run_id", "tracking_uri")}
