"""Processed data on disk: token ids in samples.arrow, and files of packs that point into it.

All are Arrow IPC files, memory-mapped when read: opening takes no time, however large they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from snaketune.core.errors import UserError
from snaketune.core.files import atomic_file
from snaketune.core.layout import DataPaths
from snaketune.data.packing import Piece
from snaketune.data.template import IGNORE, EncodedSample, supervised_tokens

_TOKENS = pa.list_(pa.int32())
_WEIGHTS = pa.list_(pa.float32())
_SAMPLES = pa.schema(
    [("input_ids", _TOKENS), ("labels", _TOKENS), ("weights", _WEIGHTS), ("place", pa.string())]
)
_PACKS = pa.schema(
    [("samples", _TOKENS), ("starts", _TOKENS), ("stops", _TOKENS), ("loss_weight", pa.float64())]
)


@dataclass(frozen=True)
class Pack:
    """One row: several samples, one after the other.

    `input_ids` and `labels` are int32 arrays of the same length; labels are unshifted, and the
    first of each sample is ignored, as no token of its own sample comes before it. `lengths` are
    the tokens of each sample; `weights` (float32) is None where every label counts the same.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray | None = None


class Samples:
    """The samples of a file, read on access."""

    def __init__(self, path: Path) -> None:
        self._table = _open(path)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> EncodedSample:
        """A sample, without a copy."""
        columns = (self._table.column(name) for name in _SAMPLES.names[:3])
        ids, labels, weights = (column[index].values for column in columns)
        counted = None if weights is None else weights.to_numpy()
        return EncodedSample(ids.to_numpy(), labels.to_numpy(), counted)

    def place(self, index: int) -> str:
        """The place of a sample's row, as file:line."""
        return self._table.column("place")[index].as_py()


class Packs(Sequence[Pack]):
    """The packs of a file, read on access; their tokens are in samples.arrow beside it."""

    def __init__(self, path: Path) -> None:
        self._table = _open(path)
        self._samples = Samples(DataPaths(path.parent).samples)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if not -len(self) <= index < len(self):
            raise IndexError(f"pack {index} of {len(self)}")
        columns = (self._table.column(name)[index].as_py() for name in _PACKS.names[:3])
        parts = [
            self._samples[sample].part(start, stop)
            for sample, start, stop in zip(*columns, strict=True)
        ]
        labels = np.concatenate([part.labels for part in parts])
        lengths = np.array([len(part.input_ids) for part in parts], np.int32)
        labels[np.cumsum(lengths) - lengths] = IGNORE
        ids = np.concatenate([part.input_ids for part in parts])
        return Pack(ids, labels, lengths, _joined_weights(parts))

    def places(self, index: int) -> list[str]:
        """The places of the rows in a pack, as file:line."""
        return list(dict.fromkeys(map(self._samples.place, self.samples(index))))

    def samples(self, index: int) -> list[int]:
        """The number in samples.arrow of each piece of a pack."""
        return self._table.column("samples")[index].as_py()

    def most_tokens(self) -> int:
        """The tokens of the longest pack."""
        columns = (self._table.column(name).combine_chunks() for name in ("starts", "stops"))
        starts, stops = (np.add.reduceat(c.flatten().to_numpy(), c.offsets[:-1]) for c in columns)
        return int((stops - starts).max())

    def loss_weights(self) -> np.ndarray:
        """The sum of the weights in each pack, float64: usually its supervised tokens."""
        return self._table.column("loss_weight").to_numpy()


class SampleSizes(NamedTuple):
    """For each sample its tokens and supervised tokens, int32; the weights' sum, float64."""

    lengths: np.ndarray
    supervised: np.ndarray
    loss_weight: np.ndarray


@dataclass(frozen=True)
class ArrowColumns:
    """Many samples as flat arrays, which pass between processes quickly, and their places."""

    input_ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None
    sizes: SampleSizes
    places: Sequence[str]

    @staticmethod
    def of(samples: Sequence[EncodedSample], places: Sequence[str]) -> "ArrowColumns":
        """Concatenate samples."""
        nothing = [np.zeros(0, np.int32)]
        labels = np.concatenate([sample.labels for sample in samples] or nothing)
        lengths = np.array([len(sample.input_ids) for sample in samples], np.int32)
        weights = _joined_weights(samples)
        firsts = np.cumsum(lengths) - lengths
        counted = labels != IGNORE
        # for an empty sample reduceat would give its neighbour's value; those were skipped before
        counted[firsts] = False
        weighed = counted if weights is None else weights * counted
        sizes = SampleSizes(
            lengths,
            np.add.reduceat(counted, firsts, dtype=np.int32),
            np.add.reduceat(weighed, firsts, dtype=np.float64),
        )
        ids = np.concatenate([sample.input_ids for sample in samples] or nothing)
        return ArrowColumns(ids, labels, weights, sizes, places)


class SampleWriter:
    """Appends samples to a file, and keeps their sizes in memory."""

    def __init__(self, writer: pa.ipc.RecordBatchFileWriter) -> None:
        self._writer = writer
        self._sizes = [ArrowColumns.of([], []).sizes]
        self.count = 0

    def write(self, columns: ArrowColumns) -> None:
        count, lengths = len(columns.sizes.lengths), columns.sizes.lengths
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        lists = [
            pa.nulls(count, _WEIGHTS)
            if values is None
            else pa.ListArray.from_arrays(offsets, pa.array(values))
            for values in (columns.input_ids, columns.labels, columns.weights)
        ]
        places = pa.array(columns.places, pa.string())
        self._writer.write_batch(pa.record_batch([*lists, places], schema=_SAMPLES))
        self._sizes.append(columns.sizes)
        self.count += count

    def sizes(self) -> SampleSizes:
        """The sizes of all samples so far."""
        return SampleSizes(*map(np.concatenate, zip(*self._sizes, strict=True)))


@contextmanager
def writing_samples(path: Path) -> Iterator[SampleWriter]:
    """Give a writer of a samples file, which appears once the block succeeds."""
    with atomic_file(path) as temporary, pa.ipc.new_file(str(temporary), _SAMPLES) as writer:
        yield SampleWriter(writer)


class PackTable(NamedTuple):
    """Packs as flat int32 arrays: the pieces of all, and where each pack's begin in them.

    `offsets` has one more than there are packs.
    """

    samples: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def of(rows: Sequence[Sequence[Piece]]) -> "PackTable":
        pieces = np.array([piece for row in rows for piece in row], np.int32).reshape(-1, 3)
        samples, starts, stops = pieces.T
        return PackTable(samples, starts, stops, _offsets(rows))

    @staticmethod
    def of_whole(
        rows: Sequence[Sequence[int]], numbers: np.ndarray, lengths: np.ndarray
    ) -> "PackTable":
        """Make the table of rows of whole samples: indices into `numbers` and `lengths`."""
        flat = np.fromiter(chain.from_iterable(rows), np.int64)
        starts = np.zeros(len(flat), np.int32)
        samples, stops = (values[flat].astype(np.int32) for values in (numbers, lengths))
        return PackTable(samples, starts, stops, _offsets(rows))

    def size(self) -> int:
        """The number of packs."""
        return len(self.offsets) - 1


def _offsets(rows: Sequence[Sequence[Any]]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)


def write_packs(path: Path, packs: PackTable, piece_weights: np.ndarray) -> None:
    """Write packs atomically.

    Args:
        piece_weights: The sum of the loss weights in each piece.
    """
    sums = np.concatenate([[0.0], np.cumsum(piece_weights)])[packs.offsets]
    offsets = pa.array(packs.offsets)
    lists = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in packs[:3]]
    batch = pa.record_batch([*lists, pa.array(np.diff(sums))], schema=_PACKS)
    with atomic_file(path) as temporary, pa.ipc.new_file(str(temporary), _PACKS) as writer:
        writer.write_batch(batch)


def loss_weight(encoded: EncodedSample) -> float:
    """The sum of a sample's weights without the first token's, which nothing predicts."""
    if encoded.weights is None:
        return float(supervised_tokens(encoded))
    return float(encoded.weights[1:].sum(dtype=np.float64))


def _joined_weights(samples: Sequence[EncodedSample]) -> np.ndarray | None:
    """The weights of all samples, float32, or None if every label counts the same."""
    if all(sample.weights is None for sample in samples):
        return None
    ones = ((sample.labels != IGNORE).astype(np.float32) for sample in samples)
    return np.concatenate(
        [one if s.weights is None else s.weights for s, one in zip(samples, ones, strict=True)]
    )


def _open(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(
            f"cannot read the processed data {path}: {error}.\n"
            f"  Fix: delete the folder {path.parent} and run the same command again."
        ) from error
