"""The .pth file: written whole or not at all, and never trusted before its checksum is checked.

torch saves a zip archive, which keeps a CRC-32 of every record: the file carries its own
checksum. Nothing in it needs unpickling of code; it is read with `weights_only=True`.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any, TypedDict

import torch

from snaketune.core.errors import UserError
from snaketune.core.files import atomic_file
from snaketune.core.layout import RunPaths


class CheckpointState(TypedDict):
    """The content of a .pth file: tensors and plain values alone, or it could not be read back.

    Attributes:
        iteration: Micro-batches that were trained on.
        resume_from: The last of them that ended an update; a resumed run repeats those after it.
        weights: What is trained, as `trained_weights` gives it.
        optimizer: The engine's state; None in a converted checkpoint.
        random: The random state at `resume_from` of each process; None in a converted checkpoint.
        about: The fields of `CheckpointAbout`.
    """

    iteration: int
    resume_from: int
    weights: dict[str, torch.Tensor]
    optimizer: Any
    random: list[dict[str, torch.Tensor]] | None
    about: dict[str, Any]


def save_checkpoint(path: Path, state: CheckpointState) -> None:
    """Write a checkpoint atomically.

    Raises:
        UserError: The disk is full or not writable; earlier checkpoints are untouched.
    """
    with atomic_file(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's zip writer hides the OSError behind one
            raise UserError(
                f"cannot write the checkpoint {path}: the disk is probably full.\n"
                "  Earlier checkpoints are untouched. Fix: free some space, then run the same "
                "command again; training goes on from the newest of them."
            ) from error


def load_checkpoint(path: Path) -> CheckpointState:
    """Read a checkpoint after checking it.

    Raises:
        UserError: It is not kept, damaged, or holds code.
    """
    if not path.exists():
        kept = ", ".join(map(str, sorted(RunPaths(path.parent).kept()))) or "none"
        raise UserError(
            f"{path} does not exist; kept are iterations {kept}.\n"
            "  Fix: name one of these, or train with a larger train.keep or another "
            "train.save_every (delete the checkpoints folder to train again)."
        )
    reason = damage(path)
    if reason:
        raise UserError(f"the checkpoint {path} cannot be used: {reason}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise UserError(
            f"{path} is not a checkpoint of SnakeTune, which hold tensors and plain values only; "
            f"nothing in it was run.\n  Fix: delete it. torch says: {str(error).splitlines()[0]}"
        ) from error


def damage(path: Path) -> str | None:
    """Why a checkpoint cannot be read, or None if it is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return f"{error}".rstrip(".")
    return f"its record {record} is corrupt" if record else None
