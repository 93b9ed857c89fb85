"""What is written down about the machine, against psutil and a stand-in for a GPU's driver."""

import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from mlflow.system_metrics.metrics import gpu_monitor

from snaketune.core.files import read_jsonl
from snaketune.tracking import system
from snaketune.tracking.system import SystemMetrics


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(system, "SECONDS_BETWEEN", 0)


def test_a_row_has_the_machines_load_in_mlflows_names(often, tmp_path):
    metrics = SystemMetrics(tmp_path)
    for iteration in (1, 2, 3):
        started = time.perf_counter()
        while time.perf_counter() - started < 0.05:
            pass
        metrics.record(iteration)
    rows = read_jsonl(tmp_path / "system.jsonl")
    assert [row["iteration"] for row in rows] == [2, 3]  # the first call begins to measure
    assert all(0 < row["cpu_utilization_percentage"] <= 100 for row in rows)
    total = psutil.virtual_memory().total / 1e6
    assert all(0 < row["system_memory_usage_megabytes"] < total for row in rows)
    assert abs(rows[-1]["unix_seconds"] - time.time()) < 5


def test_rows_are_ten_seconds_apart(monkeypatch, tmp_path):
    clock = iter([0, 9, 10, 15, 20, 29])
    monkeypatch.setattr(system.time, "monotonic", lambda: next(clock))
    metrics = SystemMetrics(tmp_path)
    for iteration in range(1, 7):
        metrics.record(iteration)
    assert [row["iteration"] for row in read_jsonl(tmp_path / "system.jsonl")] == [3, 5]


def test_a_gpu_is_measured_where_there_is_one(often, monkeypatch, tmp_path):
    driver = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(used=2e9, total=8e9),
        nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=87),
        nvmlDeviceGetPowerUsage=lambda _: 150_000,
        nvmlDeviceGetEnforcedPowerLimit=lambda _: 300_000,
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(gpu_monitor, "pynvml", driver, raising=False)
    metrics = SystemMetrics(tmp_path)
    for iteration in (1, 2):
        metrics.record(iteration)
    [row] = read_jsonl(tmp_path / "system.jsonl")
    assert row["gpu_0_utilization_percentage"] == 87
    assert (row["gpu_0_memory_usage_megabytes"], row["gpu_0_power_usage_watts"]) == (2000, 150)


def test_a_driver_that_fails_costs_a_warning_and_no_training(often, monkeypatch, tmp_path, caplog):
    def fail():
        raise RuntimeError("driver/library version mismatch")

    monkeypatch.setattr(system, "_monitors", fail)
    monkeypatch.setattr(system.log, "propagate", True)
    metrics = SystemMetrics(tmp_path)
    for iteration in (1, 2, 3):
        metrics.record(iteration)
    assert [record.getMessage() for record in caplog.records] == [
        "the machine's load is not recorded: driver/library version mismatch"
    ]
    assert not (tmp_path / "system.jsonl").exists()
