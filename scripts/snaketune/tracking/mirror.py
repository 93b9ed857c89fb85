"""Mirrors a run to MLflow while it trains; metrics.jsonl and the like are complete without it."""

import logging
import time
from pathlib import Path

from snaketune.core.errors import Interrupted
from snaketune.experiment.resolved import Resolved
from snaketune.tracking import mlflow_client
from snaketune.tracking.system import SystemMetrics
from snaketune.tracking.tracked_run import TrackedRun
from snaketune.training.callbacks import Callback
from snaketune.training.train_record import MetricsRow

log = logging.getLogger(__name__)

SECONDS_BETWEEN = 15
"""While training, how long to wait between two pushes."""

SECONDS_AFTER_FAILURE = 600
"""How long to leave a server alone that did not answer: each attempt holds training up."""


class Mirror(Callback):
    """Ends the MLflow run as FINISHED, KILLED (a signal stopped it) or FAILED.

    Args:
        folder: experiments/X/checkpoints.
        experiment: What is trained, for names, tags and parameters.
        data: The processed data's folder.
    """

    def __init__(self, folder: Path, experiment: Resolved, data: Path | None = None) -> None:
        self.run = TrackedRun(folder, experiment, data)
        self.system = SystemMetrics(folder)
        self._next_push = 0.0
        self._warned = False

    def on_start(self) -> None:
        """Show the run in MLflow before the model is loaded, which may take minutes."""
        self._try("RUNNING")

    def on_end(self, error: BaseException | None) -> None:
        """Send the rest and how the run ended."""
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        self._try("FINISHED" if error is None else "KILLED" if stopped else "FAILED")

    def on_iteration_end(self, row: MetricsRow) -> None:
        """Record what the machine does, and send what is new if the last time was a while ago."""
        self.system.record(row.iteration)
        if time.monotonic() >= self._next_push:
            self._try("RUNNING")

    def _try(self, status: str) -> None:
        """Send; a server that cannot be reached costs one warning and no training."""
        pause = SECONDS_BETWEEN
        try:
            self._send(status)
        except Exception as error:  # any failure of the mirror is less than a lost run
            pause = SECONDS_AFTER_FAILURE
            self._warn(error)
        self._next_push = time.monotonic() + pause

    def _send(self, status: str) -> None:
        self.run.open()
        self.run.send_progress()
        if status == "RUNNING":
            self.run.client.update_run(self.run.run_id, status=status)
        else:
            self.run.end(status)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            log.warning(
                "MLflow at %s does not answer (%s). Training goes on and keeps all figures in %s; "
                "should MLflow lack some at the end, fill them in with: snakemake track",
                mlflow_client.shown_uri(),
                mlflow_client.reason(error),
                self.run.folder,
            )
        self._warned = True
