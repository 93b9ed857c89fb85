"""A copy of the workflow with a study on a model made on the spot, run by the real Snakemake."""

import pytest

from project import Project, lay_out
from tiny_model import write_base, write_rows

STUDY = """\
model: {source: ./models/tiny}
method: {name: lora, r: 4, alpha: 8, dropout: 0.1}
data:
  - {path: rows.jsonl, format: alpaca}
max_length: 160
pack: false
train: {epochs: 2, accumulate: 3, lr: 1e-3, save_every: 4, precision: fp32}
sample: {every: 100, prompts: [Say 3], max_new_tokens: 4}
evaluate: {prompts: [Say 4], max_new_tokens: 4, probes: [retention]}
agent: {questions: questions.yaml, canned: tools.yaml}
variants:
  none: {}
  other: {train: {seed: 1}}
"""
ENDS = ("eval/report.html", "data/report.html", "resolved.yaml", "agent/report.html")

AGENT = """\
import sys
from pathlib import Path

folder = Path(sys.argv[sys.argv.index("--output") + 1])
for name in ("report.html", "report.json"):
    (folder / name).touch()
"""
"""In place of scripts/agent.py: a tiny model speaks nonsense, and takes a minute for it."""


@pytest.fixture(scope="session")
def fresh(tmp_path_factory, repository) -> Project:
    """A project of which nothing is built; tests only ask it."""
    project = lay_out(repository, tmp_path_factory.mktemp("fresh"))
    experiments = project.folder / "experiments"
    write_base(experiments / "models" / "tiny")
    (experiments / "models" / "tiny" / "provenance.json").unlink()
    write_rows(experiments / "rows.jsonl")
    (experiments / "probes").mkdir()
    (experiments / "probes" / "retention.yaml").write_text("- {question: Say 3, accept: [three]}\n")
    (experiments / "questions.yaml").write_text("- {question: Rain?, tool: Sky}\n")
    (experiments / "tools.yaml").write_text(
        "- {name: Sky, description: weather, answers: [{input: {}, result: rain}]}\n"
    )
    project.study.write_text(STUDY)
    return project


@pytest.fixture(scope="session")
def build(fresh, tmp_path_factory):
    """A project whose experiment study_none was built from nothing, and Snakemake's process."""
    project = fresh.copy(tmp_path_factory.mktemp("built"))
    (project.folder / "scripts" / "agent.py").write_text(AGENT)
    return project, project.snakemake(*(f"experiments/study_none/{end}" for end in ENDS))


@pytest.fixture(scope="session")
def built(build) -> Project:
    """The built project; tests put back what they change."""
    return build[0]


@pytest.fixture(scope="module")
def copy_built(built, tmp_path_factory):
    """Return a function that makes a copy of the built project, for a test to change."""
    return lambda: built.copy(tmp_path_factory.mktemp("copy"))
