"""What the machine did while a run trained: CPU, memory and GPUs, in checkpoints/system.jsonl.

The figures are measured by MLflow's own monitors and have MLflow's names. Its
SystemMetricsMonitor is not used: it sends from a thread that ends for good at the first request
that fails, keeps nothing locally that could be sent later, and waits for a dead server at the end
of the run. Here a row is written after an iteration, and sent with all other rows.
"""

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

from snaketune.tracking.mlflow_adapter import machine_monitors
from snaketune.tracking.mlflow_client import reason

log = logging.getLogger(__name__)

FILE = "system.jsonl"
SECONDS_BETWEEN = 10
"""Between two rows, as MLflow's own monitor does; the CPU's figure is the mean since the last."""


class SystemMetrics:
    """Writes a row to system.jsonl every so often.

    Args:
        folder: experiments/X/checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self._monitors: list[Any] | None = None
        self._next = 0.0

    def record(self, iteration: int) -> None:
        """Append a row, if the last one was a while ago; the first call begins to measure."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SECONDS_BETWEEN
        try:
            if self._monitors is None:
                self._monitors = _monitors()
                return
            measured = _measured(self._monitors)
        except Exception as error:  # drivers raise many kinds, and none is worth a training
            log.warning("the machine's load is not recorded: %s", reason(error))
            self._next = math.inf
            return
        row = {"iteration": iteration, "unix_seconds": time.time(), **measured}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _monitors() -> list[Any]:
    monitors = machine_monitors()
    _measured(monitors)  # the first figure of psutil's cpu_percent is meaningless
    return monitors


def _measured(monitors: list[Any]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        figures |= monitor.aggregate_metrics()
        monitor.clear_metrics()
    return figures
