"""A copy of the workflow with a study on a model made on the spot, run by the real Snakemake."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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


AGENT = """\
import sys
from pathlib import Path

folder = Path(sys.argv[sys.argv.index("--output") + 1])
for name in ("report.html", "report.json"):
    (folder / name).touch()
"""
"""In place of scripts/agent.py: a tiny model speaks nonsense, and takes a minute for it."""


class Project:
    """A working folder and its Snakemake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study = folder / "experiments" / "study.yaml"
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.environment.pop("MLFLOW_TRACKING_URI", None)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *arguments]

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout
        return done

    def stop_when(self, reached: Callable[[], bool], number: int, *targets: str) -> None:
        """Run targets in a session of their own, and signal its whole group once it is so far."""
        process = subprocess.Popen(
            self.command(*targets),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not reached() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, number)
        assert process.wait() != 0

    def would_run(self, *targets: str) -> dict[str, int]:
        """Return the jobs of a dry run, by rule."""
        output = self.snakemake("-n", *targets).stdout
        jobs = dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))
        jobs.pop("total", None)
        assert jobs or "Nothing to be done" in output
        return {rule: int(count) for rule, count in jobs.items()}


@pytest.fixture(scope="session")
def make_project(tmp_path_factory, repository):
    def make() -> Project:
        folder = tmp_path_factory.mktemp("project")
        for name in ("Snakefile", "rules", "profiles", "envs", "scripts"):
            source = repository / name
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, folder / name)
        write_base(folder / "experiments" / "models" / "tiny")
        (folder / "experiments" / "models" / "tiny" / "provenance.json").unlink()
        write_rows(folder / "experiments" / "rows.jsonl")
        probes = folder / "experiments" / "probes"
        probes.mkdir()
        (probes / "retention.yaml").write_text("- {question: Say 3, accept: [three]}\n")
        (folder / "experiments" / "questions.yaml").write_text("- {question: Rain?, tool: Sky}\n")
        (folder / "experiments" / "tools.yaml").write_text(
            "- {name: Sky, description: weather, answers: [{input: {}, result: rain}]}\n"
        )
        project = Project(folder)
        project.study.write_text(STUDY)
        return project

    return make


@pytest.fixture(scope="session")
def built(make_project):
    """A project whose experiment study_none is built to its end."""
    project = make_project()
    (project.folder / "scripts" / "agent.py").write_text(AGENT)
    ends = ("eval/report.html", "data/report.html", "resolved.yaml", "agent/report.html")
    project.snakemake(*(f"experiments/study_none/{end}" for end in ends))
    return project
