"""Killing Snakemake and everything below it, then typing the same command again."""

import shutil
import signal

import pytest
import torch

from snaketune.core.files import read_jsonl

TARGET = "experiments/study_none/checkpoints/last.pth"


def losses(project):
    rows = read_jsonl(project.folder / "experiments/study_none/checkpoints/metrics.jsonl")
    return [row["loss"] for row in rows]


def weights(project):
    path = project.folder / "experiments/study_none/checkpoints/last.pth"
    return torch.load(path, weights_only=True)["weights"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_same_command_goes_on_and_ends_bit_equal(built, copy_built, number):
    stopped = copy_built()
    shutil.rmtree(stopped.folder / "experiments/study_none")
    stopped.stop_when(lambda: len(losses(stopped)) >= 9, number, TARGET)
    assert 9 <= len(losses(stopped)) < len(losses(built))
    stopped.snakemake(TARGET)
    assert losses(stopped) == losses(built)
    expected, found = weights(built), weights(stopped)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
