"""Pack samples into rows of at most `max_length` tokens: whole, or cut as XTuner does."""

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

Piece = tuple[int, int, int]
"""A sample's number, its first token, and the one after its last: usually the whole sample."""

XTUNER_SHARDS = 32
XTUNER_BATCH = 1000
"""XTuner maps its packer over a shard in batches of this many samples."""


def pack(lengths: Sequence[int] | np.ndarray, max_length: int) -> list[list[int]]:
    """Group samples so that few rows are needed and no sample is split.

    The longest samples are placed first, each into the row it fills best, the oldest of several.
    The result depends on the lengths alone. Time grows with the number of samples, as rows are
    found by the tokens they have left.

    Args:
        lengths: Tokens of each sample, each from 1 to `max_length`.
        max_length: Tokens a row may hold.

    Returns:
        For each row, the indices of its samples.
    """
    rows: list[list[int]] = []
    with_left: list[list[int]] = [[] for _ in range(max_length + 1)]  # rows by tokens left
    some_left = 0  # bit n is set where with_left[n] has a row
    lengths = np.asarray(lengths, dtype=np.int64)
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        fitting = some_left >> length  # its lowest bit is the row that is filled best
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            row = heappop(with_left[left])
            if not with_left[left]:
                some_left ^= 1 << left
        else:
            left, row = max_length, len(rows)
            rows.append([])
        rows[row].append(index)
        left -= length
        heappush(with_left[left], row)
        some_left |= 1 << left
    return rows


def concatenate_and_cut(
    lengths: Sequence[int] | np.ndarray,
    max_length: int,
    shards: int = XTUNER_SHARDS,
    batch: int = XTUNER_BATCH,
) -> list[list[Piece]]:
    """Concatenate samples and cut at exactly `max_length`, as XTuner 0.1 does.

    The order is shuffled with a fixed seed, and dealt to shards that are packed separately. The
    rest at the end of a shard is dropped, unless it is all that the shard's last batch has.

    Returns:
        For each row, its pieces; a sample may continue in the next row.
    """
    order = np.random.default_rng(0).permutation(len(lengths))
    rows: list[list[Piece]] = []
    for shard in np.array_split(order, shards):
        left: list[Piece] = []
        for start in range(0, len(shard), batch):
            part = [(int(n), 0, int(lengths[n])) for n in shard[start : start + batch]]
            *full, left = _cut(left + part, max_length)
            if not full:
                full, left = [left], []
            rows += full
    return rows


def _cut(pieces: list[Piece], max_length: int) -> list[list[Piece]]:
    """Cut into rows of exactly `max_length` tokens and, last, the rest, which may be empty."""
    rows: list[list[Piece]] = [[]]
    room = max_length
    for sample, first, stop in pieces:
        start = first
        while start < stop:
            end = min(stop, start + room)
            rows[-1].append((sample, start, end))
            room -= end - start
            start = end
            if not room:
                rows.append([])
                room = max_length
    return rows
