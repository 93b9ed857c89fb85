import pytest

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
    assert f"{learning_rate(iteration, 768, 2e-4, 0.03):.4e}" == logged


def test_without_warmup_starts_at_the_peak():
    assert learning_rate(1, 100, 1e-3, 0.0) == 1e-3


@pytest.mark.parametrize("total", [1, 2, 33, 34, 67, 1000])
def test_is_positive_and_at_most_the_peak(total):
    rates = [learning_rate(i, total, 1.0, 0.03) for i in range(1, total + 1)]
    assert all(0 < rate <= 1 for rate in rates)
