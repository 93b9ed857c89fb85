"""Put whole samples into rows of at most `max_length` tokens: best-fit decreasing."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Group samples so that few rows are needed and no sample is split.

    The longest samples are placed first, each into the row it fills best. The result depends on
    the lengths alone.

    Args:
        lengths: Tokens of each sample, each at most `max_length`.
        max_length: Tokens a row may hold.

    Returns:
        For each row, the indices of its samples.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), ascending
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        best = bisect_left(free, (lengths[index], 0))
        if best == len(free):
            left, row = max_length, len(rows)
            rows.append([])
        else:
            left, row = free.pop(best)
        rows[row].append(index)
        insort(free, (left - lengths[index], row))
    return rows
