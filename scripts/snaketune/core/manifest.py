"""manifest.json: the size and SHA-256 of every file of a finished folder, written last."""

import logging
import shutil
from pathlib import Path

from snaketune.core.errors import UserError
from snaketune.core.files import inventory, read_json, write_json, write_text

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """List every file of a folder in its manifest."""
    (folder / MANIFEST).unlink(missing_ok=True)
    write_json(folder / MANIFEST, {"files": inventory(folder)})


def listed(folder: Path) -> list[str]:
    """Return the names of the files a folder's manifest lists.

    Raises:
        UserError: There is no manifest: the folder is not whole.
    """
    return list(_entries(folder))


def damage(folder: Path) -> list[str]:
    """Return what differs from the manifest, a line for each file: all bytes are read."""
    try:
        expected = _entries(folder)
    except UserError as error:
        return [str(error).splitlines()[0]]
    except (KeyError, TypeError):
        return [f"{MANIFEST} lists no files"]
    found = {entry["name"]: entry for entry in inventory(folder) if entry["name"] != MANIFEST}
    names = sorted(expected.keys() | found.keys())
    return [
        f"{name} {_difference(expected.get(name), found.get(name))}"
        for name in names
        if expected.get(name) != found.get(name)
    ]


def verify(folder: Path, output: Path) -> None:
    """Compare a folder with its manifest, and write a line for each file of it.

    A damaged folder is moved aside, so that Snakemake builds it again.

    Raises:
        UserError: Files are missing, changed, or not of it.
    """
    lines = damage(folder)
    if not lines:
        log.info("all %d files of %s are as they were written", len(listed(folder)), folder)
        write_text(output, "".join(f"{name}: OK\n" for name in listed(folder)))
        return
    aside = folder.with_name(f"{folder.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    raise UserError(
        f"{folder} is not as it was written:{_told(lines)}\n"
        f"  It is now {aside}. Fix: build it again: snakemake {folder}"
    )


def require_intact(folder: Path) -> None:
    """Refuse a folder that is not as it was written.

    Raises:
        UserError: Files are missing, changed, or not of it.
    """
    lines = damage(folder)
    if lines:
        raise UserError(
            f"{folder} is not as it was written:{_told(lines)}\n"
            f"  Fix: delete it and build it again: rm -r {folder} && snakemake {folder}"
        )


def _entries(folder: Path) -> dict[str, dict[str, object]]:
    manifest = folder / MANIFEST
    try:
        return {entry["name"]: entry for entry in read_json(manifest)["files"]}
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{manifest} is damaged (it lists no files by name).\n  Fix: delete it and rebuild."
        ) from error


def _told(lines: list[str]) -> str:
    return "".join(f"\n  {line}" for line in lines)


def _difference(expected: dict[str, object] | None, found: dict[str, object] | None) -> str:
    if expected is None:
        return "is not in the manifest"
    if found is None:
        return "is missing"
    if expected.get("bytes") != found["bytes"]:
        return f"has {found['bytes']} bytes, expected {expected.get('bytes')}"
    return "has other bytes (sha256 differs)"
