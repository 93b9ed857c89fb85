"""What is beyond chance, against cases computed by hand and against scipy's own interval."""

import math

import pytest
from scipy.stats import ttest_ind

from snaketune.scoring.significance import Measured, apart, heldout, how_judged, single


def runs(*values) -> Measured:
    return Measured(values)


def test_mean_and_deviation_are_of_a_sample():
    measured = runs(2.0, 4.0, 9.0)
    assert measured.mean == 5
    assert measured.deviation == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert Measured((3.0,)).deviation is None


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # difference 3, standard error sqrt(1/3 + 1/3), t = 3.67 > 2.776, the quantile at 4 degrees
        ((1, 2, 3), (4, 5, 6), True),
        # the same spread, difference 2: t = 2.45 < 2.776
        ((1, 2, 3), (3, 4, 5), False),
        # variances 0.02 and 0.5; t = 4 / sqrt(0.01 + 0.25) = 7.8, degrees 0.0676 / 0.0626 = 1.08,
        # whose quantile is about 11
        ((1.0, 1.2), (4.6, 5.6), False),
        ((5, 5, 5), (5, 5, 5), False),
        ((5, 5, 5), (6, 6, 6), True),
    ],
)
def test_repeated_runs_are_told_by_welchs_test(one, other, expected):
    assert apart(runs(*one), runs(*other)) is expected
    assert apart(runs(*other), runs(*one)) is expected
    assert how_judged(runs(*one), runs(*other)) == "the spread of the seeds"


def test_apart_is_where_welchs_95_percent_interval_of_the_difference_leaves_out_zero():
    for step in range(60):
        one, other = (1.0, 1.3, 0.8, 1.1), tuple(0.5 + step / 50 + each for each in (0.0, 0.4, 0.1))
        interval = ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
        assert apart(runs(*one), runs(*other)) is not (interval.low <= 0 <= interval.high)


@pytest.mark.parametrize(
    # mean 11, deviation sqrt(2); 12.706 × sqrt(2) × sqrt(1 + 1/2) = 22.01
    ("value", "expected"),
    [(32.9, False), (33.1, True), (-10.9, False), (-11.1, True)],
)
def test_a_single_run_is_told_by_the_prediction_interval_of_the_others(value, expected):
    assert apart(runs(10, 12), Measured((value,))) is expected
    assert apart(Measured((value,), 0.0, 1.0), runs(10, 12)) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [((0.1, 0.3), (0.31, 0.6), True), ((0.1, 0.3), (0.3, 0.6), False), ((0, 1), (0.4, 0.5), False)],
)
def test_intervals_must_not_overlap(one, other, expected):
    first, second = (Measured((sum(ends) / 2,), *ends) for ends in (one, other))
    assert apart(first, second) is apart(second, first) is expected
    assert how_judged(first, second) == "the intervals"


@pytest.mark.parametrize(
    ("after", "expected"), [(111, False), (112, True), (90, False), (89, True)]
)
def test_one_run_each_must_differ_by_more_than_the_noise(after, expected):
    one, other = single("training_seconds", 100), single("training_seconds", after)
    assert apart(one, other) is apart(other, one) is expected
    assert how_judged(one, other) == "the 10 % that one run each cannot tell from chance"


@pytest.mark.parametrize(
    ("tokens", "after", "expected"),
    [(10**6, 1.019, False), (10**6, 1.021, True), (100, 1.09, False), (100, 1.11, True)],
)
def test_losses_of_few_tokens_must_differ_by_more(tokens, after, expected):
    one, other = heldout(1.0, tokens), heldout(after, tokens)
    assert apart(one, other) is apart(other, one) is expected
    margin = {10**6: "0.02", 100: "0.1"}[tokens]
    words = f"the {margin} that one run each on {tokens:,} tokens cannot tell from chance"
    assert how_judged(one, other) == words


def test_a_figure_that_does_not_vary_is_apart_at_once():
    assert apart(single("updates", 10), single("updates", 11))
    assert not apart(single("updates", 10), single("updates", 10))
