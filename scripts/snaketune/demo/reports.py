"""The reports of an experiment: their addresses, or the commands that build them."""

from dataclasses import dataclass
from pathlib import Path

from snaketune.core.layout import EXPERIMENTS, ExperimentPaths

REPORTS = {"data": "Data report", "eval": "Evaluation"}
"""Titles by the name in the address, /reports/X/NAME.html."""


@dataclass(frozen=True)
class ReportLink:
    """A report of an experiment: its address on the page, and the command that builds it."""

    title: str
    path: str
    command: str
    exists: bool


def reports(experiment: str, experiments: Path) -> list[ReportLink]:
    return [
        ReportLink(
            title,
            f"/reports/{experiment}/{kind}.html",
            f"snakemake {report_file(experiment, kind)}",
            report_file(experiment, kind, experiments).exists(),
        )
        for kind, title in REPORTS.items()
    ]


def report_file(experiment: str, kind: str, experiments: Path = EXPERIMENTS) -> Path:
    paths = ExperimentPaths(experiment, experiments)
    return {"data": paths.data, "eval": paths.evaluation}[kind].html
