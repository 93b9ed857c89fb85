"""Files are there whole or not at all, whatever stops the writer."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from snaketune.core import files
from snaketune.core.errors import UserError
from snaketune.core.files import Busy, atomic_file, atomic_folder, locked, read_json, read_jsonl


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_the_place_of_another(tmp_path):
    for text in ("one", "two"):
        files.write_text(tmp_path / "deep" / "file", text)
    assert (tmp_path / "deep" / "file").read_text() == "two"
    assert names(tmp_path / "deep") == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_while_writing_leaves_what_was_there(tmp_path, error):
    files.write_text(tmp_path / "file", "before")
    with pytest.raises(error), atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise error
    with pytest.raises(error), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "part").write_text("half")
        raise error
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_a_folder_takes_the_place_of_another(tmp_path):
    for name in ("one", "two"):
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / name).write_text(name)
    assert names(tmp_path / "folder") == ["two"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_full_or_closed_disk_is_told_with_the_file(tmp_path, code):
    for write in (atomic_file, atomic_folder):
        path = tmp_path / "target"
        with pytest.raises(UserError, match=rf"cannot write {path}: .*(.|\n)*Fix: "), write(path):
            raise OSError(code, os.strerror(code))
    assert names(tmp_path) == []


def test_an_unreadable_file_elsewhere_is_not_blamed_on_the_disk(tmp_path):
    with pytest.raises(PermissionError), atomic_file(tmp_path / "target"):
        raise PermissionError(errno.EACCES, "no", "/elsewhere/source")


def test_what_a_killed_process_left_is_cleared_and_what_a_running_one_writes_is_not(tmp_path):
    killed = subprocess.Popen(["true"])
    killed.wait()
    left, others = (f".file.{pid}.tmp" for pid in (killed.pid, os.getppid()))
    (tmp_path / left).write_text("half")
    (tmp_path / others).write_text("half")
    files.write_text(tmp_path / "file", "whole")
    assert names(tmp_path) == sorted([others, "file"])


def test_a_lock_is_waited_for_then_refused_then_free_again(tmp_path):
    path = tmp_path / "folder"
    with (
        locked(path),
        pytest.raises(Busy, match=rf"another process \({os.getpid()}\) is using {path}"),
        locked(path, seconds=0.3),
    ):
        pass
    with locked(path, seconds=0):
        pass


def test_json_that_is_missing_or_damaged_is_told(tmp_path):
    with pytest.raises(UserError, match=r"is missing(.|\n)*snakemake"):
        read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"is damaged(.|\n)*delete it"):
        read_json(tmp_path / "half.json")


def test_a_line_cut_off_by_a_crash_is_ignored(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert read_jsonl(path) == []
    path.write_text('{"a": "\u2028"}\n{"b": 2}\n{"c": ', encoding="utf-8")
    assert read_jsonl(path) == [{"a": "\u2028"}, {"b": 2}]


def test_too_little_disk_is_told_in_figures(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 5 * 2**20})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    files.require_free_space(tmp_path / "not" / "yet", 5 * 2**20, "it")
    with pytest.raises(UserError, match="it needs 6 MiB, 5 MiB are free"):
        files.require_free_space(tmp_path, 6 * 2**20, "it")


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def refuse(self, *_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    told = r"cannot write .*checkpoints: Read-only file system(.|\n)*Fix"
    with pytest.raises(UserError, match=told), locked(tmp_path / "checkpoints"):
        pass


def test_an_inventory_leaves_out_the_mark_of_snakemake(tmp_path):
    for name in ("a", ".snakemake_timestamp", ".hidden"):
        (tmp_path / name).touch()
    assert [entry["name"] for entry in files.inventory(tmp_path)] == [".hidden", "a"]
