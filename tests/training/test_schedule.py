import pytest

from snaketune.experiment.schema import Train
from snaketune.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("iteration", "logged"),
    [
        (10, "8.1819e-05"),
        (720, "2.1272e-06"),
        (730, "1.3493e-06"),
        (740, "7.4681e-07"),
        (750, "3.2080e-07"),
        (760, "7.2010e-08"),
    ],
)
def test_equals_the_rates_xtuner_logged(iteration, logged):
    assert f"{learning_rate(iteration, 768, Train(lr=2e-4)):.4e}" == logged


def test_without_warmup_starts_at_the_peak():
    assert learning_rate(1, 100, Train(lr=1e-3, warmup_ratio=0)) == 1e-3


@pytest.mark.parametrize("total", [1, 2, 33, 34, 67, 1000])
def test_is_positive_and_at_most_the_peak(total):
    rates = [learning_rate(i, total, Train(lr=1.0)) for i in range(1, total + 1)]
    assert all(0 < rate <= 1 for rate in rates)


def test_warmup_in_updates_takes_their_iterations():
    train = Train(lr=1.0, warmup_steps=3, accumulate=4)
    rates = [learning_rate(i, 100, train) for i in range(1, 101)]
    assert rates[:12] == sorted(rates[:12])
    assert rates[11] == rates[12] == 1.0 > rates[13]


def test_a_linear_rate_falls_evenly_and_a_constant_one_stays():
    linear = [
        learning_rate(i, 10, Train(lr=1.0, warmup_ratio=0, schedule="linear")) for i in range(1, 11)
    ]
    assert linear == pytest.approx([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert learning_rate(10, 10, Train(lr=1.0, schedule="constant")) == 1.0
