"""Paths: the same names as patterns of rules, as files of an experiment, and back."""

from pathlib import Path

import pytest

from snaketune.core.layout import ExperimentPaths, RunPaths, iteration_name, iteration_number


def test_names_work_as_patterns_of_rules():
    paths = ExperimentPaths("{experiment}")

    assert paths.run.last.as_posix() == "experiments/{experiment}/checkpoints/last.pth"
    assert paths.merged("{at}").as_posix() == "experiments/{experiment}/{at}/merged"


@pytest.mark.parametrize("name", ["iter_0", "iter_007", "iter_", "last", "iter_3.pth"])
def test_other_names_are_no_iteration(name):
    assert iteration_number(name) is None


def test_iterations_are_named_and_read_back():
    assert iteration_number(iteration_name(300)) == 300


def test_kept_checkpoints_are_known_by_their_name(tmp_path: Path):
    for name in ("iter_20.pth", "iter_3.pth", "last.pth", "iter_4.damaged", "iter_x.pth"):
        (tmp_path / name).touch()

    assert sorted(RunPaths(tmp_path).kept()) == [3, 20]
