"""Killing Snakemake and everything below it, then typing the same command again."""

import os
import signal
import subprocess
import time

import pytest
import torch

from snaketune.files import read_jsonl

TARGET = "experiments/study_none/adapter"


def losses(project):
    rows = read_jsonl(project.folder / "experiments/study_none/checkpoints/metrics.jsonl")
    return [row["loss"] for row in rows]


def weights(project):
    path = project.folder / "experiments/study_none/checkpoints/last.pth"
    return torch.load(path, weights_only=True)["weights"]


def start_and_stop(project, number, after):
    """Run the target in a session of its own, and signal its whole group mid-training."""
    process = subprocess.Popen(
        project.command(TARGET),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(losses(project)) < after and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, number)
    assert process.wait() != 0
    return len(losses(project))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_same_command_goes_on_and_ends_bit_equal(built, make_project, number):
    stopped = make_project()
    reached = start_and_stop(stopped, number, after=9)
    assert 9 <= reached < len(losses(built))
    stopped.snakemake(TARGET)
    assert losses(stopped) == losses(built)
    expected, found = weights(built), weights(stopped)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
