"""Which run a checkpoints folder holds, without opening a checkpoint."""

import hashlib
import json

import pytest

from snaketune.core.layout import RunPaths
from snaketune.core.run_identity import FolderStatus, RunIdentity, folder_status

MINE, OTHER = (RunIdentity(train_id=train_id, data_sha256="1") for train_id in "ab")


@pytest.fixture
def run(tmp_path):
    return RunPaths(tmp_path / "checkpoints")


def write(run, identity, *iterations):
    run.folder.mkdir(parents=True, exist_ok=True)
    identity.write(run.identity)
    for number in iterations:
        run.checkpoint(number).touch()


def test_empty_folder(run):
    assert folder_status(run, MINE) == FolderStatus()


def test_own_checkpoints(run):
    write(run, MINE, 4, 20, 8)
    assert folder_status(run, MINE) == FolderStatus(run, None, 20)


def test_run_killed_before_its_first_checkpoint(run):
    write(run, MINE)
    assert folder_status(run, MINE) == FolderStatus()


def test_other_run_will_be_superseded(run):
    write(run, OTHER, 4)
    assert folder_status(run, MINE) == FolderStatus(None, OTHER.superseded_in(run), 0)


def test_own_run_will_be_restored(run):
    write(run, OTHER, 4)
    write(MINE.superseded_in(run), MINE, 12)
    expected = FolderStatus(MINE.superseded_in(run), OTHER.superseded_in(run), 12)
    assert folder_status(run, MINE) == expected


def test_file_of_an_earlier_release(run):
    values = {"train_id": "cafe", "base_sha256": "b" * 64, "data_sha256": "d" * 64}
    text = json.dumps(values, indent=2) + "\n"
    run.folder.mkdir()
    run.identity.write_text(text)
    old = RunIdentity.read(run.identity)
    assert old == RunIdentity(**values)
    assert old.digest == hashlib.sha256(text.encode()).hexdigest()
    assert old.superseded_in(run).folder == run.superseded / f"cafe-{'d' * 12}-{'b' * 12}"
    old.write(run.identity)
    assert RunIdentity.read(run.identity).digest == old.digest
