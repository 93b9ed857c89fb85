"""Processed data on disk: token ids once in samples.arrow, and packs that point into it.

Both are Arrow IPC files, memory-mapped when read: opening takes no time, however large they are.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute

from snaketune.data.packing import Piece
from snaketune.data.template import IGNORE, Encoded, supervised_tokens
from snaketune.errors import UserError
from snaketune.files import atomic_file

_TOKENS = pa.list_(pa.int32())
_WEIGHTS = pa.list_(pa.float32())
_SAMPLES = pa.schema([("input_ids", _TOKENS), ("labels", _TOKENS), ("weights", _WEIGHTS)])
_PACKS = pa.schema(
    [("samples", _TOKENS), ("starts", _TOKENS), ("stops", _TOKENS), ("loss_weight", pa.float64())]
)
_PACKS_IN_BATCH = 10_000


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
    """The samples of a file, read as they are asked for."""

    def __init__(self, path: Path) -> None:
        self._table = _open(path)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Encoded:
        """Return a sample without copying it."""
        ids, labels, weights = (self._table.column(name)[index].values for name in _SAMPLES.names)
        counted = None if weights is None else weights.to_numpy()
        return Encoded(ids.to_numpy(), labels.to_numpy(), counted)

    def occurrences(self, token: int) -> int:
        """Return how often a token is in all samples."""
        ids = compute.list_flatten(self._table.column("input_ids"))
        return compute.sum(compute.equal(ids, token)).as_py() or 0


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
        parts = [
            self._samples[sample].part(start, stop)
            for sample, start, stop in zip(*columns, strict=True)
        ]
        labels = np.concatenate([part.labels for part in parts])
        lengths = np.array([len(part.input_ids) for part in parts], np.int32)
        labels[np.cumsum(lengths) - lengths] = IGNORE
        ids = np.concatenate([part.input_ids for part in parts])
        return Pack(ids, labels, lengths, _joined_weights(parts))

    def loss_weights(self) -> np.ndarray:
        """Return the sum of the weights in each pack, float64: usually its supervised tokens."""
        return self._table.column("loss_weight").to_numpy()


class Sizes(NamedTuple):
    """For each sample its tokens, those that carry loss, and the sum of their weights."""

    lengths: np.ndarray
    supervised: np.ndarray
    loss_weight: np.ndarray


@dataclass(frozen=True)
class Columns:
    """Many samples as flat arrays, quick to hand from process to process.

    `lengths` and `supervised` (int32) are the tokens of each sample, and those that carry loss;
    `loss_weight` (float64) the sum of their weights.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None
    lengths: np.ndarray
    supervised: np.ndarray
    loss_weight: np.ndarray

    @staticmethod
    def of(samples: Sequence[Encoded]) -> "Columns":
        """Put samples one after the other."""
        nothing = [np.zeros(0, np.int32)]
        return Columns(
            np.concatenate([sample.input_ids for sample in samples] or nothing),
            np.concatenate([sample.labels for sample in samples] or nothing),
            _joined_weights(samples),
            np.array([len(sample.input_ids) for sample in samples], np.int32),
            np.array([supervised_tokens(sample) for sample in samples], np.int32),
            np.array([loss_weight(sample) for sample in samples], np.float64),
        )


class SampleWriter:
    """Writes samples as they come, and keeps their sizes."""

    def __init__(self, writer: pa.ipc.RecordBatchFileWriter) -> None:
        self._writer = writer
        self._sizes: dict[str, list[np.ndarray]] = {name: [] for name in Sizes.__annotations__}
        self.count = 0

    def write(self, columns: Columns) -> None:
        """Append samples."""
        offsets = np.concatenate([[0], np.cumsum(columns.lengths)]).astype(np.int32)
        lists = [
            pa.nulls(len(columns.lengths), kind.type)
            if values is None
            else pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
            for kind in _SAMPLES
            for values in [getattr(columns, kind.name)]
        ]
        self._writer.write_batch(pa.record_batch(lists, schema=_SAMPLES))
        for name, arrays in self._sizes.items():
            arrays.append(getattr(columns, name))
        self.count += len(columns.lengths)

    def sizes(self) -> Sizes:
        """Return the sizes of all samples so far."""
        empty = Columns.of([])
        return Sizes(
            *(np.concatenate([getattr(empty, name), *each]) for name, each in self._sizes.items())
        )


@contextmanager
def writing_samples(path: Path) -> Iterator[SampleWriter]:
    """Give a writer of a samples file, which is there once the block ends well."""
    with atomic_file(path) as temporary, pa.ipc.new_file(str(temporary), _SAMPLES) as writer:
        yield SampleWriter(writer)


def write_packs(path: Path, packs: Iterable[tuple[Sequence[Piece], float]]) -> None:
    """Write packs, each its pieces and the sum of its loss weights, atomically."""
    with atomic_file(path) as temporary, pa.ipc.new_file(str(temporary), _PACKS) as writer:
        rows: list[dict[str, Any]] = []
        for pieces, weight in packs:
            samples, starts, stops = zip(*pieces, strict=True)
            row = {"samples": samples, "starts": starts, "stops": stops}
            rows.append(row | {"loss_weight": weight})
            if len(rows) == _PACKS_IN_BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, _PACKS))
                rows.clear()
        writer.write_batch(pa.RecordBatch.from_pylist(rows, _PACKS))


def loss_weight(encoded: Encoded) -> float:
    """Return the sum of a sample's weights; its first token has none, nothing predicts it."""
    if encoded.weights is None:
        return float(supervised_tokens(encoded))
    return float(encoded.weights[1:].sum(dtype=np.float64))


def _joined_weights(samples: Sequence[Encoded]) -> np.ndarray | None:
    """Return the weights of all samples, float32, or None if every label counts the same."""
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
