import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaketune.data.packing import concatenate_and_cut, pack

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


def test_the_courses_768_iterations():
    rows = concatenate_and_cut([41] * 10_001, 1024)
    assert 2 * len(rows) == 768
    assert {sum(stop - start for _, start, stop in row) for row in rows} == {1024}
    packed = len(rows) * 1024
    assert 10_001 * 41 - packed == 16_825  # tokens dropped at the ends of 32 shards


@pytest.mark.parametrize(("tokens", "dropped"), [(40, 6_824), (42, 26_826)])
def test_rows_a_token_longer_or_shorter_give_768_too(tokens, dropped):
    rows = concatenate_and_cut([tokens] * 10_001, 1024)
    assert (2 * len(rows), 10_001 * tokens - len(rows) * 1024) == (768, dropped)


@given(lengths_of_samples, st.integers(1, 4), st.integers(1, 20))
def test_cutting_loses_only_the_ends_of_shards(lengths, shards, batch):
    rows = concatenate_and_cut(lengths, MAX_LENGTH, shards, batch)
    tokens = [(n, t) for row in rows for n, start, stop in row for t in range(start, stop)]
    assert len(set(tokens)) == len(tokens)
    assert all(t < lengths[n] for n, t in tokens)
    assert sum(lengths) - len(tokens) <= shards * (MAX_LENGTH - 1)
    assert all(sum(stop - start for _, start, stop in row) <= MAX_LENGTH for row in rows)
