"""A model's weights in safetensors, read and written a tensor at a time, whatever their size.

safetensors' own writer wants a whole shard in memory; this one writes the same format in blocks.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open

from snaketune.core.errors import UserError
from snaketune.core.files import write_json
from snaketune.core.progress import track_progress

Shapes = Mapping[str, torch.Tensor]
"""Tensors by name on the device `meta`: shapes and dtypes without values."""

_MIB = 2**20

INDEX = "model.safetensors.index.json"

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_NAMES = {name: dtype for dtype, name in _DTYPES.items()}


class InFiles(Mapping[str, torch.Tensor]):
    """Tensors by name; each is mapped from its file when asked for.

    Attributes:
        shapes: Every tensor's shape and dtype, in the order of the files.
    """

    def __init__(self) -> None:
        self._places: dict[str, tuple[Path, str]] = {}
        self.shapes: dict[str, torch.Tensor] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._places  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Stored(InFiles):
    """The tensors in a folder's safetensors.

    Raises:
        UserError: A file is damaged or cut off.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        for file in sorted(folder.glob("*.safetensors")):
            for name, shape in _header(file).items():
                self._places[name], self.shapes[name] = (file, name), shape

    def renamed(self, names: Mapping[str, str]) -> "Stored":
        """The same tensors by other names, without those that are given none."""
        found = copy(self)
        found._places = {new: self._places[old] for old, new in names.items()}
        found.shapes = {new: self.shapes[old] for old, new in names.items()}
        return found

    def __getitem__(self, name: str) -> torch.Tensor:
        path, own = self._places[name]
        # a file stays in memory as long as it is open, so it is opened anew for each tensor
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(own)


def write_weights(
    folder: Path,
    shapes: Shapes,
    blocks: Callable[[str], Iterable[torch.Tensor]],
    max_shard_size: int | str,
) -> None:
    """Write model.safetensors, or shards and their index, holding one block in memory.

    Args:
        folder: Where to write; not atomic in itself.
        shapes: What to write, in this order.
        blocks: Gives a tensor's values in its dtype, in consecutive blocks of rows.
        max_shard_size: Bytes, or as in `2GB`; a larger tensor is a shard of its own.

    Raises:
        UserError: `max_shard_size` is no size.
    """
    try:
        split = split_state_dict_into_shards_factory(
            dict(shapes),
            get_storage_size=lambda tensor: tensor.nbytes,
            filename_pattern="model{suffix}.safetensors",
            max_shard_size=max_shard_size,
        )
    except ValueError as error:
        raise UserError(
            f"'{max_shard_size}' is no size.\n  Fix: write e.g. 500MB or 2GB."
        ) from error
    with track_progress("weights", split.metadata["total_size"] // _MIB, "MiB") as tell:
        done = 0
        for file, names in split.filename_to_tensors.items():
            # the widest first, as safetensors has them: each begins at a multiple of its width
            names = sorted(names, key=lambda name: -shapes[name].element_size())
            of_file = {name: shapes[name] for name in names}
            for size in _write_file(folder / file, of_file, blocks):
                tell((done := done + size) // _MIB)
    if split.is_sharded:
        files = split.tensor_to_filename
        write_json(folder / INDEX, {"metadata": split.metadata, "weight_map": files})


def _write_file(
    path: Path, shapes: Shapes, blocks: Callable[[str], Iterable[torch.Tensor]]
) -> Iterator[int]:
    """Write one safetensors file: the header's length in 8 bytes, the header, the values.

    Yields the bytes of each block once it is written.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + shape.nbytes
        entry = {"dtype": _DTYPES[shape.dtype], "shape": list(shape.shape)}
        header[name] = entry | {"data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for block in _one_ahead(block for name in shapes for block in blocks(name)):
            file.write(block.contiguous().flatten().view(torch.uint8).numpy().data)
            yield block.nbytes


def _one_ahead(blocks: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Have a thread compute the next block while the last one is written."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, blocks, None)
        while (block := following.result()) is not None:
            following = thread.submit(next, blocks, None)
            yield block


def _header(file: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(file, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.offset_keys()}
            return {
                name: torch.empty(each.get_shape(), dtype=_NAMES[each.get_dtype()], device="meta")
                for name, each in slices.items()
            }
    except SafetensorError as error:
        raise UserError(f"{file} is damaged: {error}.\n  Fix: delete it and rebuild.") from error
