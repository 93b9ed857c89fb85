"""Processed data on disk: one Arrow IPC file of packs, memory-mapped when read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from snaketune.data.template import IGNORE, Encoded
from snaketune.errors import UserError
from snaketune.files import atomic_file

_TOKENS = pa.list_(pa.int32())
_SCHEMA = pa.schema([("input_ids", _TOKENS), ("labels", _TOKENS), ("lengths", _TOKENS)])


@dataclass(frozen=True)
class Pack:
    """One row: several whole samples, one after the other.

    `input_ids` and `labels` are int32 arrays of the same length; labels are unshifted, and the
    first of each sample is ignored, as no token of its own sample comes before it. `lengths` are
    the tokens of each sample.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray


class Packs(Sequence[Pack]):
    """The packs of a file, read as they are asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(
                f"cannot read the processed data {path}: {error}.\n"
                f"  Fix: delete the folder {path.parent} and run the same command again."
            ) from error

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        columns = (self._table.column(name)[index].values for name in _SCHEMA.names)
        return Pack(*(column.to_numpy() for column in columns))

    def supervised_tokens(self) -> np.ndarray:
        """Return the number of tokens that carry loss in each pack, int64."""
        counts = [int((pack.labels != IGNORE).sum()) for pack in self]
        return np.array(counts, dtype=np.int64)


def write_packs(path: Path, samples: Sequence[Encoded], rows: Iterable[Sequence[int]]) -> None:
    """Write one pack for each list of sample indices, atomically."""
    with atomic_file(path) as temporary, pa.ipc.new_file(str(temporary), _SCHEMA) as writer:
        for row in rows:
            ids = [token for index in row for token in samples[index].input_ids]
            labels = [label for index in row for label in [IGNORE, *samples[index].labels[1:]]]
            lengths = [len(samples[index].input_ids) for index in row]
            columns = [pa.array([column], _TOKENS) for column in (ids, labels, lengths)]
            writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
