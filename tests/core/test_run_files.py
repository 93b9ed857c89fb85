"""What a training would find in its folder, without opening a checkpoint."""

import json

import pytest

from snaketune.core.run_files import Standing, standing, superseded

MINE, OTHER = {"train_id": "a", "data_sha256": "1"}, {"train_id": "b", "data_sha256": "1"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def write(folder, identity, *iterations):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(identity))
    for number in iterations:
        (folder / f"iter_{number}.pth").touch()


def test_nothing_is_there(folder):
    assert standing(folder, MINE) == Standing()


def test_its_own_checkpoints(folder):
    write(folder, MINE, 4, 20, 8)
    assert standing(folder, MINE) == Standing(folder, None, 20)


def test_a_run_killed_before_its_first_checkpoint(folder):
    write(folder, MINE)
    assert standing(folder, MINE) == Standing()


def test_another_run_is_set_aside(folder):
    write(folder, OTHER, 4)
    assert standing(folder, MINE) == Standing(None, superseded(folder, OTHER), 0)


def test_its_own_run_comes_back(folder):
    write(folder, OTHER, 4)
    write(superseded(folder, MINE), MINE, 12)
    expected = Standing(superseded(folder, MINE), superseded(folder, OTHER), 12)
    assert standing(folder, MINE) == expected
