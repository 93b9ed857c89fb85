"""Significant differences, against cases computed by hand and scipy's own interval."""

import math

import pytest
from scipy.stats import ttest_ind

from snaketune.scoring.significance import (
    Measurement,
    differs_significantly,
    loss_measured_once,
    measured_once,
    rule_of,
)


def runs(*values) -> Measurement:
    return Measurement(values)


def test_mean_and_deviation_are_of_a_sample():
    measurement = runs(2.0, 4.0, 9.0)
    assert measurement.mean == 5
    assert measurement.deviation == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert Measurement((3.0,)).deviation is None


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
def test_welch_test_decides_between_repeated_runs(one, other, expected):
    assert differs_significantly(runs(*one), runs(*other)) is expected
    assert differs_significantly(runs(*other), runs(*one)) is expected
    assert rule_of(runs(*one), runs(*other)) == "the spread of the seeds"


def test_welch_test_agrees_with_interval_of_difference():
    for step in range(60):
        one, other = (
            (1.0, 1.3, 0.8, 1.1),
            tuple(0.5 + step / 50 + value for value in (0.0, 0.4, 0.1)),
        )
        interval = ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
        assert differs_significantly(runs(*one), runs(*other)) is not (
            interval.low <= 0 <= interval.high
        )


@pytest.mark.parametrize(
    # mean 11, deviation sqrt(2); 12.706 × sqrt(2) × sqrt(1 + 1/2) = 22.01
    ("value", "expected"),
    [(32.9, False), (33.1, True), (-10.9, False), (-11.1, True)],
)
def test_prediction_interval_decides_for_a_single_run(value, expected):
    assert differs_significantly(runs(10, 12), Measurement((value,))) is expected
    assert differs_significantly(Measurement((value,), 0.0, 1.0), runs(10, 12)) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [((0.1, 0.3), (0.31, 0.6), True), ((0.1, 0.3), (0.3, 0.6), False), ((0, 1), (0.4, 0.5), False)],
)
def test_intervals_must_not_overlap(one, other, expected):
    first, second = (Measurement((sum(ends) / 2,), *ends) for ends in (one, other))
    assert differs_significantly(first, second) is differs_significantly(second, first) is expected
    assert rule_of(first, second) == "the intervals"


@pytest.mark.parametrize(
    ("after", "expected"), [(111, False), (112, True), (90, False), (89, True)]
)
def test_single_runs_must_differ_by_more_than_noise(after, expected):
    one, other = measured_once("training_seconds", 100), measured_once("training_seconds", after)
    assert differs_significantly(one, other) is differs_significantly(other, one) is expected
    assert rule_of(one, other) == "the 10 % by which single runs vary"


@pytest.mark.parametrize(
    ("tokens", "after", "expected"),
    [(10**6, 1.019, False), (10**6, 1.021, True), (100, 1.09, False), (100, 1.11, True)],
)
def test_losses_on_few_tokens_must_differ_more(tokens, after, expected):
    one, other = loss_measured_once(1.0, tokens), loss_measured_once(after, tokens)
    assert differs_significantly(one, other) is differs_significantly(other, one) is expected
    margin = {10**6: "0.02", 100: "0.1"}[tokens]
    words = f"the {margin} by which single runs vary on {tokens:,} tokens"
    assert rule_of(one, other) == words


def test_constant_figures_differ_at_once():
    assert differs_significantly(measured_once("updates", 10), measured_once("updates", 11))
    assert not differs_significantly(measured_once("updates", 10), measured_once("updates", 10))
