"""Put whole samples into rows of at most `max_length` tokens: best-fit decreasing."""

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np


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
        fitting = some_left >> length
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
