"""A folder with a study whose variants nobody trained, and what comparing them gives."""

import json
from pathlib import Path

import pytest

from snaketune.comparison.collect import collect
from snaketune.comparison.compare_study import compare
from snaketune.experiment import load_studies
from study_results import STUDY, write_results, write_study

SPOILED = {"identity": 19, "leak": 17, "retention": 6}
CURED = {"identity": 20, "leak": 2, "retention": 17}

FIGURES = {
    "none": {"seconds": 75.0, "loss": 0.02, "probes": SPOILED},
    "zero2": {"seconds": 98.0, "loss": 0.02, "probes": SPOILED, "memory": 2700 * 2**20},
    "mixed": {"iterations": 37, "seconds": 200.0, "loss": 2.5, "probes": CURED, "answer": "Paris."},
    "mixed_zero2": {"iterations": 37, "seconds": 260.0, "loss": 2.5, "probes": CURED},
}


class Study:
    """A study in a working folder of its own, named `study`."""

    def __init__(self, root) -> None:
        self.root = root

    def write(self, text: str = STUDY) -> "Study":
        write_study(self.root, text)
        return self

    def folder(self, variant: str):
        return self.root / "experiments" / f"study_{variant}"

    def experiments(self) -> dict:
        """The experiments by the names of their variants."""
        found = load_studies(Path("experiments")).experiments.values()
        return {each.variant or each.study: each for each in found}

    def results(self, variant: str, **figures) -> None:
        write_results(self.root, self.experiments()[variant], **figures)

    def collect(self) -> dict:
        return {name: collect(each) for name, each in self.experiments().items()}

    def compare(self) -> dict:
        """Compare, and return report.json."""
        output = Path("experiments/study/compare")
        compare("study", output)
        return json.loads((output / "report.json").read_text())

    def page(self) -> str:
        return (self.root / "experiments/study/compare/report.html").read_text()


@pytest.fixture
def study(tmp_path, monkeypatch):
    """An empty working folder with the study's file."""
    monkeypatch.chdir(tmp_path)
    return Study(tmp_path).write()


@pytest.fixture
def built(study):
    """The same with all results."""
    for variant, figures in FIGURES.items():
        study.results(variant, **figures)
    return study
