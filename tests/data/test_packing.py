import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaketune.data.packing import pack

MAX_LENGTH = 12
lengths_of_samples = st.lists(st.integers(1, MAX_LENGTH), max_size=60)


def slow_best_fit_decreasing(lengths, max_length):
    """Look at every row for every sample: the fullest that holds it, the oldest of several."""
    rows = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True):
        used = [sum(lengths[i] for i in row) for row in rows]
        fitting = [row for row in range(len(rows)) if used[row] + lengths[index] <= max_length]
        if fitting:
            rows[max(fitting, key=lambda row: used[row])].append(index)
        else:
            rows.append([index])
    return rows


@given(lengths_of_samples)
def test_every_sample_is_in_exactly_one_row(lengths):
    packed = pack(lengths, MAX_LENGTH)
    assert sorted(index for row in packed for index in row) == list(range(len(lengths)))


@given(lengths_of_samples)
def test_no_row_is_too_long_or_empty(lengths):
    totals = [sum(lengths[index] for index in row) for row in pack(lengths, MAX_LENGTH)]
    assert all(1 <= total <= MAX_LENGTH for total in totals)


@given(lengths_of_samples)
def test_rows_equal_those_of_the_slow_reference(lengths):
    assert pack(lengths, MAX_LENGTH) == slow_best_fit_decreasing(lengths, MAX_LENGTH)


def test_many_samples_pack_as_the_slow_reference_does():
    lengths = [random.Random(0).randint(1, 512) for _ in range(400)]
    assert pack(lengths, 512) == slow_best_fit_decreasing(lengths, 512)


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        ([], []),
        ([5], [[0]]),
        ([12], [[0]]),
        ([4, 4, 4], [[0, 1, 2]]),
        ([3, 7, 5, 9], [[3, 0], [1, 2]]),
        ([6, 5, 7, 6], [[2, 1], [0, 3]]),
    ],
)
def test_these_samples_give_these_rows(lengths, rows):
    assert pack(lengths, MAX_LENGTH) == rows
