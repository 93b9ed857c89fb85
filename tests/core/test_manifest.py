"""What a finished folder holds, and what has become of it since."""

import hashlib

import pytest

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.manifest import Manifest, damage, verify, write_manifest


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "merged"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"abc")
    (folder / "sub/b.txt").write_text("b")
    write_manifest(folder)
    return folder


def test_every_file_is_listed_with_its_size_and_sha256(folder):
    assert read_json(folder / "manifest.json")["files"] == [
        {"name": "a.bin", "sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3},
        {"name": "sub/b.txt", "sha256": hashlib.sha256(b"b").hexdigest(), "bytes": 1},
    ]
    assert Manifest.of(folder).names == ["a.bin", "sub/b.txt"] and damage(folder) == []


DAMAGE = {
    "flipped": (lambda f: (f / "a.bin").write_bytes(b"abd"), "a.bin has changed"),
    "cut": (lambda f: (f / "a.bin").write_bytes(b"ab"), "a.bin has 2 bytes, expected 3"),
    "missing": (lambda f: (f / "sub/b.txt").unlink(), "sub/b.txt is missing"),
    "more": (lambda f: (f / "c").write_text(""), "c is not in the manifest"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
    "another manifest": (lambda f: (f / "manifest.json").write_text("{}"), "files: Field required"),
    "half a manifest": (lambda f: (f / "manifest.json").write_text("{"), "is damaged"),
    "a list": (
        lambda f: (f / "manifest.json").write_text('{"files": ["a.bin"]}'),
        "files.0: Input should be",
    ),
    "names alone": (
        lambda f: (f / "manifest.json").write_text('{"files": [{"name": "a.bin"}]}'),
        "files.0.sha256: Field required",
    ),
}


@pytest.mark.parametrize(("harm", "told"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_and_moved_aside(folder, harm, told):
    harm(folder)
    with pytest.raises(UserError, match=f"{told}(.|\n)*Fix: build it again: snakemake .*merged"):
        verify(folder, folder.parent / "verify")
    assert not folder.exists() and folder.with_name("merged.damaged").is_dir()
    assert not (folder.parent / "verify").exists()


def test_a_whole_folder_is_said_to_be(folder):
    verify(folder, folder.parent / "verify")
    assert (folder.parent / "verify").read_text() == "a.bin: OK\nsub/b.txt: OK\n"


def test_snakemakes_timestamp_in_a_folder_is_no_damage(folder):
    (folder / ".snakemake_timestamp").touch()
    assert damage(folder) == []
