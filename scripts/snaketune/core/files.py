"""Read and write files and folders so that a reader never sees half of one."""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError

log = logging.getLogger(__name__)

_MARK_OF_SNAKEMAKE = ".snakemake_timestamp"
"""Snakemake adds it to the folders that are outputs of rules."""

LFS_POINTER = b"version https://git-lfs"
"""The beginning of a file that Git LFS has put in the place of the real one."""


class Busy(UserError):
    """Another process holds the lock."""


_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is only a pointer of Git LFS."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def inventory(folder: Path) -> list[dict[str, Any]]:
    """Name, sha256 and bytes of every file under a folder, sorted by name."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return [
        {"name": name, "sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
        for name in names
        if name != _MARK_OF_SNAKEMAKE
    ]


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Context manager: a temporary path in the same folder, renamed to `path` on success.

    The file is fsynced first, and so is the folder afterwards.

    Raises:
        UserError: The disk is full or the folder cannot be written; `path` is as it was before.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Context manager: an empty temporary folder that replaces `path` on success.

    Raises:
        UserError: The disk is full or the parent cannot be written; `path` is as it was before.
    """
    temporary = _temporary(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # some writers leave files that only the owner can read
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name: a hard link, or a copy on another file system."""
    with atomic_file(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


@contextmanager
def locked(path: Path, seconds: float = float("inf")) -> Iterator[None]:
    """Context manager: lock a file or folder against other processes.

    The lock is an flock on a hidden file next to it. The kernel releases it when the process ends,
    however it ends.

    Args:
        seconds: How long to wait for the lock.

    Raises:
        Busy: Another process still holds it after that time.
        UserError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("a+")
    except OSError as error:
        raise _explained(path, error) from error
    with lock as file:
        _wait_for(file, path, seconds)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one line of JSON for each row, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file that a SnakeTune stage has written.

    Raises:
        UserError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: the stage that writes it has not finished.\n"
            "  Fix: build the target with snakemake, which runs that stage first."
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}).\n  Fix: delete it and rebuild.") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a JSON Lines file, ignoring a last line cut off by a crash; [] if there is no file."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


def require_free_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to start work that the disk cannot hold.

    Args:
        folder: Where the files will be written; it need not exist yet.
        needed: Bytes.
        purpose: What needs them, for the message.

    Raises:
        UserError: Fewer than `needed` bytes are free.
    """
    existing = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"too little disk space in {folder}: {purpose} needs {needed / 2**20:,.0f} MiB, "
            f"{free / 2**20:,.0f} MiB are free.\n"
            "  Fix: free some space there, then run the same command again."
        )


def _temporary(path: Path) -> Path:
    """This process's temporary name for `path`; deletes what killed processes have left there."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        pid = left.suffixes[-2][1:]
        if pid == str(os.getpid()) or not _is_running(int(pid)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # someone else's
    return True


def _wait_for(file: Any, path: Path, seconds: float) -> None:
    deadline, announced = time.monotonic() + seconds, False
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read() or "unknown"
        if time.monotonic() > deadline:
            raise Busy(
                f"another process ({owner}) is using {path}.\n"
                f"  Fix: wait until it is done, or stop it: kill {owner}"
            )
        if not announced:
            log.info("waiting for process %s, which is using %s", owner, path)
            announced = True
        time.sleep(0.2)


def _explained(path: Path, error: OSError) -> Exception:
    """Turn a full or unwritable disk into a UserError; leave any other error alone."""
    inside = str(error.filename or path).startswith(str(path.parent))
    if error.errno not in _UNWRITABLE or not inside:
        return error
    return UserError(
        f"cannot write {path}: {error.strerror}.\n"
        "  The previous content is untouched. Fix: free space or change permissions, then rerun."
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
