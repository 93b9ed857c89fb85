"""The reports of an experiment: where they are, or what builds them."""

from dataclasses import dataclass
from pathlib import Path

REPORTS = {"data": "Data report", "eval": "Evaluation"}
"""By the folder that each is in."""


@dataclass(frozen=True)
class Report:
    """A report of an experiment; `exists` tells whether it was built."""

    title: str
    path: str
    command: str
    exists: bool


def reports(name: str, experiments: Path) -> list[Report]:
    """Return an experiment's reports.

    Args:
        name: The experiment, or one of its checkpoints.
        experiments: The folder of the experiments.
    """
    experiment = name.partition("/")[0]
    return [
        Report(
            title,
            f"/reports/{experiment}/{kind}.html",
            f"snakemake experiments/{experiment}/{kind}/report.html",
            report_file(experiment, kind, experiments).exists(),
        )
        for kind, title in REPORTS.items()
    ]


def report_file(experiment: str, kind: str, experiments: Path) -> Path:
    """Return where a report is, if it was built."""
    return experiments / experiment / kind / "report.html"
