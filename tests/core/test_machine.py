"""The machine, as files of its kernel tell it."""

import pytest

from snaketune.core import machine


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 4),
        ("", 0),
        ("-1", 0),
        ("0", 1),
        ("2,3", 2),
        ("0,-1,1", 1),  # CUDA sees those before the first that is none
        ("GPU-8f1a,GPU-77aa", 2),
        ("0,1,2,3,4,5", 4),
    ],
)
def test_gpus_are_those_that_cuda_would_see(tmp_path, monkeypatch, visible, count):
    for number in range(4):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
    monkeypatch.setattr(machine, "_DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpus() == count


def test_a_machine_without_the_driver_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_DRIVER", tmp_path / "none")
    assert machine.gpus() == 0
