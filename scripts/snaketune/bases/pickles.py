"""Weights in PyTorch's `.bin` files, read a tensor at a time and without running their code."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from snaketune.core.errors import UserError
from snaketune.core.files import require_free_space
from snaketune.models.weights import InFiles, write_weights

SHARD = "5GB"
"""The most that a shard holds of weights which are written anew, as transformers had it."""


class Pickled(InFiles):
    """The tensors in `.bin` files.

    Raises:
        UserError: A file is damaged, in the format from before torch 1.6, or holds other things
            than tensors by name, such as code.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__()
        for file in files:
            for name, tensor in _load(file).items():
                self._places[name] = file, name
                self.shapes[name] = torch.empty_like(tensor, device="meta")

    def __getitem__(self, name: str) -> torch.Tensor:
        # a file stays in memory as long as it is open, so it is opened anew for each tensor
        path, own = self._places[name]
        return _load(path)[own]


def convert_pickles(files: Sequence[Path], folder: Path, drop: Sequence[str] = ()) -> None:
    """Write the tensors of `.bin` files as safetensors, holding one of them in memory.

    Args:
        folder: Where to write; not atomic in itself.
        drop: Tensors to leave out.

    Raises:
        UserError: As `Pickled`, before anything is written; or the disk is too small.
    """
    stored = Pickled(files)
    shapes = {name: shape for name, shape in stored.shapes.items() if name not in drop}
    total = sum(shape.nbytes for shape in shapes.values())
    require_free_space(folder, total, "the weights as safetensors")
    write_weights(folder, shapes, lambda name: [stored[name]], SHARD)


def _load(file: Path) -> dict[str, torch.Tensor]:
    try:
        values: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file.name} holds more than tensors, and opening it whole could run any code: "
            f"{_first_line(error)}\n"
            "  None of it was run. Fix: name a revision with .safetensors weights (often refs/pr/N "
            "on the hub), or convert it once, where you trust it, with save_pretrained() of "
            "transformers."
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise UserError(
            f"{file.name} cannot be read as weights of torch 1.6 or newer: {_first_line(error)}\n"
            "  Fix: fetch that file again, or name a revision with .safetensors weights."
        ) from error
    if not isinstance(values, dict) or not all(map(torch.is_tensor, values.values())):
        raise UserError(
            f"{file.name} holds other things than tensors by name.\n"
            "  Fix: name a model as save_pretrained() of transformers writes it."
        )
    return values


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
