"""Read a checkpoint that another program pickled: its tensors and plain values, none of its code.

Training programs pickle their own classes beside the weights (mmengine's HistoryBuffer, numpy's
arrays, DeepSpeed's loss scaler). Each such name is given to torch's `weights_only` reader as a
class that does nothing, so nothing is imported and nothing is run.
"""

from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from snaketune.core.errors import UserError
from snaketune.core.files import is_lfs_pointer
from snaketune.models.checkpoint import damage


class Inert:
    """Stands for any class or function of another program, and for what it would make."""

    def __init__(self, *_: object, **__: object) -> None:
        """Take anything, keep nothing."""

    def __setstate__(self, _: object) -> None:
        """Forget the state."""


def load_inert(path: Path) -> dict[str, Any]:
    """Return the dictionary in a file that `torch.save` wrote; tensors stay on the disk.

    Raises:
        UserError: It is damaged, no such file, or cannot be read without running code.
    """
    _refuse_pointer(path)
    reason = damage(path)
    if reason:
        raise UserError(
            f"{path} cannot be read: {reason}.\n  Fix: copy it again from where it was trained."
        )
    try:
        names = get_unsafe_globals_in_checkpoint(str(path))
        with safe_globals([(Inert, name) for name in names]):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a strange pickle may break torch's reader in any way
        raise UserError(
            f"{path} cannot be read without running code that is in it, which is not done: nothing "
            f"was run.\n  torch says: {f'{error}'.splitlines()[0] if f'{error}' else repr(error)}\n"
            "  Fix: name a checkpoint as torch.save writes it, with tensors and plain values."
        ) from error
    if not isinstance(state, dict):
        raise UserError(
            f"{path} holds one {type(state).__name__}, expected a dictionary of weights.\n"
            "  Fix: name the checkpoint of a training."
        )
    return state


def are_weights(values: object) -> bool:
    """Tell whether something is tensors by name; a single number is no weight."""
    return isinstance(values, dict) and all(
        isinstance(name, str) and torch.is_tensor(value) and value.dim() > 0
        for name, value in values.items()
    )


def _refuse_pointer(path: Path) -> None:
    if is_lfs_pointer(path):
        raise UserError(
            f"{path} is a pointer of Git LFS, which stands for the file itself.\n"
            f"  Fix: in its repository: git lfs pull --include {path.name}"
        )
