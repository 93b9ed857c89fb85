"""manifest.json: the size and SHA-256 of every file of a finished folder, written last."""

import logging
import shutil
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from snaketune.core.errors import UserError
from snaketune.core.files import inventory, write_text
from snaketune.core.layout import MANIFEST
from snaketune.core.records import Record

log = logging.getLogger(__name__)


class FileEntry(BaseModel):
    """A file by its path in the folder, as `inventory` describes it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    sha256: str
    bytes: int


class Manifest(Record):
    """The files of a finished folder, all but the manifest itself."""

    files: list[FileEntry]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read a folder's manifest.

        Raises:
            UserError: It is missing, so the folder is incomplete, or damaged.
        """
        return cls.read(folder / MANIFEST, f"rm -r {folder} && snakemake {folder}")

    @property
    def names(self) -> list[str]:
        """The paths of the files in the folder."""
        return [file.name for file in self.files]


def write_manifest(folder: Path) -> None:
    """List every file of a folder in its manifest."""
    (folder / MANIFEST).unlink(missing_ok=True)
    Manifest(files=_inspect(folder)).write(folder / MANIFEST)


def damage(folder: Path) -> list[str]:
    """Compare a folder with its manifest, reading all bytes; a line for each file that differs."""
    try:
        manifest = Manifest.of(folder)
    except UserError as error:
        return [str(error).splitlines()[0]]
    expected = {file.name: file for file in manifest.files}
    actual = {file.name: file for file in _inspect(folder) if file.name != MANIFEST}
    return [
        f"{name} {_difference(expected.get(name), actual.get(name))}"
        for name in sorted(expected.keys() | actual.keys())
        if expected.get(name) != actual.get(name)
    ]


def verify(folder: Path, output: Path) -> None:
    """Compare a folder with its manifest, and write a line for each file of it.

    A damaged folder is moved aside, so that Snakemake builds it again.

    Raises:
        UserError: Files are missing, changed, or not in the manifest.
    """
    lines = damage(folder)
    if not lines:
        names = Manifest.of(folder).names
        log.info("all %d files of %s match its manifest", len(names), folder)
        write_text(output, "".join(f"{name}: OK\n" for name in names))
        return
    aside = folder.with_name(f"{folder.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    raise UserError(
        f"{folder} does not match its manifest:{_listed(lines)}\n"
        f"  It was moved to {aside}. Fix: build it again: snakemake {folder}"
    )


def require_intact(folder: Path) -> None:
    """Refuse a folder that does not match its manifest.

    Raises:
        UserError: Files are missing, changed, or not in the manifest.
    """
    if lines := damage(folder):
        raise UserError(
            f"{folder} does not match its manifest:{_listed(lines)}\n"
            f"  Fix: delete it and build it again: rm -r {folder} && snakemake {folder}"
        )


def _inspect(folder: Path) -> list[FileEntry]:
    return [FileEntry.model_validate(entry) for entry in inventory(folder)]


def _listed(lines: list[str]) -> str:
    return "".join(f"\n  {line}" for line in lines)


def _difference(expected: FileEntry | None, actual: FileEntry | None) -> str:
    if expected is None:
        return "is not in the manifest"
    if actual is None:
        return "is missing"
    if expected.bytes != actual.bytes:
        return f"has {actual.bytes} bytes, expected {expected.bytes}"
    return "has changed (its SHA-256 differs)"
