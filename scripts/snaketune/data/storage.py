"""Processed data on disk: token ids once in samples.arrow, and packs that point into it.

Both are Arrow IPC files, memory-mapped when read: opening takes no time, however large they are.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from snaketune.data.template import IGNORE, Encoded, supervised_tokens
from snaketune.errors import UserError
from snaketune.files import atomic_file

_TOKENS = pa.list_(pa.int32())
_SAMPLES = pa.schema([("input_ids", _TOKENS), ("labels", _TOKENS)])
_PACKS = pa.schema(
    [("samples", _TOKENS), ("starts", _TOKENS), ("stops", _TOKENS), ("supervised", pa.int64())]
)
_PACKS_IN_BATCH = 10_000

Piece = tuple[int, int, int]
"""A sample's number, its first token, and the one after its last: usually the whole sample."""


@dataclass(frozen=True)
class Pack:
    """One row: several samples, one after the other.

    `input_ids` and `labels` are int32 arrays of the same length; labels are unshifted, and the
    first of each sample is ignored, as no token of its own sample comes before it. `lengths` are
    the tokens of each sample.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray


class Samples:
    """The samples of a file, read as they are asked for."""

    def __init__(self, path: Path) -> None:
        self._table = _open(path)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Encoded:
        """Return a sample without copying it."""
        columns = (self._table.column(name)[index].values for name in _SAMPLES.names)
        return Encoded(*(column.to_numpy() for column in columns))


class Packs(Sequence[Pack]):
    """The packs of a file, read as they are asked for; their tokens lie in samples.arrow."""

    def __init__(self, path: Path) -> None:
        self._table = _open(path)
        self._samples = Samples(path.with_name("samples.arrow"))

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if not -len(self) <= index < len(self):
            raise IndexError(f"pack {index} of {len(self)}")
        columns = (self._table.column(name)[index].as_py() for name in _PACKS.names[:3])
        ids, labels = [], []
        for sample, start, stop in zip(*columns, strict=True):
            encoded = self._samples[sample]
            ids.append(encoded.input_ids[start:stop])
            labels.append(encoded.labels[start:stop].copy())
            labels[-1][0] = IGNORE
        lengths = np.array([len(part) for part in ids], np.int32)
        return Pack(np.concatenate(ids), np.concatenate(labels), lengths)

    def supervised_tokens(self) -> np.ndarray:
        """Return the number of tokens that carry loss in each pack, int64."""
        return self._table.column("supervised").to_numpy()


@dataclass(frozen=True)
class Columns:
    """Many samples as flat int32 arrays, quick to hand from process to process.

    `lengths` and `supervised` are the tokens of each sample, and those that carry loss.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    supervised: np.ndarray

    @staticmethod
    def of(samples: Sequence[Encoded]) -> "Columns":
        """Put samples one after the other."""
        nothing = [np.zeros(0, np.int32)]
        return Columns(
            np.concatenate([sample.input_ids for sample in samples] or nothing),
            np.concatenate([sample.labels for sample in samples] or nothing),
            np.array([len(sample.input_ids) for sample in samples], np.int32),
            np.array([supervised_tokens(sample) for sample in samples], np.int32),
        )


class SampleWriter:
    """Writes samples as they come, and keeps their `lengths` and `supervised` tokens."""

    def __init__(self, writer: pa.ipc.RecordBatchFileWriter) -> None:
        self._writer = writer
        self._lengths = [np.zeros(0, np.int32)]
        self._supervised = [np.zeros(0, np.int32)]
        self.count = 0

    def write(self, columns: Columns) -> None:
        """Append samples."""
        offsets = pa.array(np.concatenate([[0], np.cumsum(columns.lengths)]).astype(np.int32))
        flat = (columns.input_ids, columns.labels)
        lists = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in flat]
        self._writer.write_batch(pa.record_batch(lists, schema=_SAMPLES))
        self._lengths.append(columns.lengths)
        self._supervised.append(columns.supervised)
        self.count += len(columns.lengths)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample, int64."""
        return np.concatenate(self._lengths).astype(np.int64)

    @property
    def supervised(self) -> np.ndarray:
        """Tokens of each sample that carry loss, int64."""
        return np.concatenate(self._supervised).astype(np.int64)


@contextmanager
def writing_samples(path: Path) -> Iterator[SampleWriter]:
    """Give a writer of a samples file, which is there once the block ends well."""
    with atomic_file(path) as temporary, pa.ipc.new_file(str(temporary), _SAMPLES) as writer:
        yield SampleWriter(writer)


def write_packs(path: Path, packs: Iterable[tuple[Sequence[Piece], int]]) -> None:
    """Write packs, each its pieces and its supervised tokens, atomically."""
    with atomic_file(path) as temporary, pa.ipc.new_file(str(temporary), _PACKS) as writer:
        rows: list[dict[str, Any]] = []
        for pieces, supervised in packs:
            samples, starts, stops = zip(*pieces, strict=True)
            row = {"samples": samples, "starts": starts, "stops": stops}
            rows.append(row | {"supervised": supervised})
            if len(rows) == _PACKS_IN_BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, _PACKS))
                rows.clear()
        writer.write_batch(pa.RecordBatch.from_pylist(rows, _PACKS))


def _open(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(
            f"cannot read the processed data {path}: {error}.\n"
            f"  Fix: delete the folder {path.parent} and run the same command again."
        ) from error
