"""Mirrors a run's local files to MLflow, while it trains or long after.

metrics.jsonl and samples.jsonl are complete without MLflow. The mirror sends what it has not sent
yet and keeps note in checkpoints/mlflow.json, so a resumed run continues its MLflow run and
`snakemake track` fills in what an unreachable server missed.
"""

import json
import logging
import os
import re
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from snaketune.errors import Interrupted
from snaketune.experiment.resolved import Resolved, package_versions
from snaketune.files import read_json, read_jsonl, write_json

log = logging.getLogger(__name__)

DEFAULT_STORE = Path("store/mlflow")
SECONDS_BETWEEN = 15
"""While training, how long to wait between two pushes."""

METRICS = (
    "loss",
    "update_loss",
    "lr",
    "grad_norm",
    "time_seconds",
    "data_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
)

_BATCH = 1000
"""Metrics that one MLflow request takes at most."""
_VALUE_LENGTH = 6000
"""Characters that MLflow keeps of one parameter's value."""
_PARAMS = 100
"""Parameters that one MLflow request takes at most."""


def tracking_uri() -> str:
    """Return where MLflow keeps runs: MLFLOW_TRACKING_URI, or a SQLite file in store/mlflow."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DEFAULT_STORE}/mlflow.db"


def shown_uri() -> str:
    """Return where MLflow keeps runs, fit to be printed and stored: without a password."""
    return without_password(tracking_uri())


def reason(error: Exception) -> str:
    """Return the first line of what MLflow says."""
    return without_password(str(error).splitlines()[0]) if str(error) else type(error).__name__


def without_password(text: str) -> str:
    """Return a text with what stands before the @ of its URLs replaced."""
    return re.sub(r"://[^/\s]*@", "://***@", text)


class Mirror:
    """One run's copy in MLflow.

    Used as a context manager around training, it ends the MLflow run as FINISHED, KILLED (a
    signal stopped it) or FAILED.

    Args:
        folder: experiments/X/checkpoints.
        experiment: What is trained, for names, tags and parameters.
    """

    def __init__(self, folder: Path, experiment: Resolved) -> None:
        self.folder, self.experiment = folder, experiment
        self.note = folder / "mlflow.json"
        self._client: Any = None
        self._next_push = 0.0
        self._reachable = True

    def __enter__(self) -> "Mirror":
        self._try(status="RUNNING")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        self._try(status="FINISHED" if error is None else "KILLED" if stopped else "FAILED")

    def push(self) -> None:
        """Send what is new, if the last push was a while ago."""
        if time.monotonic() >= self._next_push:
            self._try(status="RUNNING")

    def catch_up(self) -> None:
        """Send all that is missing, and the run's final state.

        Raises:
            Exception: Whatever MLflow raises when the server cannot be reached.
        """
        finished = (self.folder / "train.json").exists()
        self._send("FINISHED" if finished else "FAILED")

    def _try(self, status: str) -> None:
        """Send; a server that cannot be reached costs one warning and no training."""
        if not self._reachable:
            return
        try:
            self._send(status)
        except Exception as error:  # any failure of the mirror is less than a lost run
            self._reachable = False
            log.warning(
                "MLflow at %s does not answer (%s). Training goes on and keeps all figures in %s; "
                "fill MLflow in later with: snakemake track",
                shown_uri(),
                reason(error),
                self.folder,
            )
        self._next_push = time.monotonic() + SECONDS_BETWEEN

    def _send(self, status: str) -> None:
        sent = self._open_run()
        self._send_metrics(sent)
        if status == "RUNNING":
            self._client.update_run(sent["run_id"], status="RUNNING")
        else:
            self._send_samples(sent)
            self._send_figures(sent["run_id"])
            self._client.set_terminated(sent["run_id"], status=status)

    def _open_run(self) -> dict[str, Any]:
        """Return what was sent so far, starting an MLflow run if there is none."""
        client = self._connect()
        sent = read_json(self.note) if self.note.exists() else {}
        if sent.get("tracking_uri") != shown_uri():
            name = self.experiment.study
            study = client.get_experiment_by_name(name)
            study_id = study.experiment_id if study else self._create_experiment(name)
            run = client.create_run(study_id, run_name=self.experiment.name, tags=self._tags())
            sent = {"tracking_uri": shown_uri(), "run_id": run.info.run_id}
            sent |= {"iteration": 0, "samples": 0}
            write_json(self.note, sent)  # at once: a server lost now must not cost a second run
        if sent["iteration"] == 0:
            self._describe(sent["run_id"])
        return sent

    def _describe(self, run_id: str) -> None:
        """Send parameters and resolved.yaml; sending them again changes nothing."""
        params = _flatten(self.experiment.config.model_dump())
        for start in range(0, len(params), _PARAMS):
            self._client.log_batch(run_id, params=_params(params[start : start + _PARAMS]))
        self._client.log_artifact(run_id, str(self.folder / "resolved.yaml"))

    def _connect(self) -> Any:
        """Return an MLflow client that gives up quickly on a dead server."""
        if self._client is None:
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
            from mlflow import MlflowClient

            if "MLFLOW_TRACKING_URI" not in os.environ:
                DEFAULT_STORE.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(tracking_uri())
        return self._client

    def _create_experiment(self, name: str) -> str:
        """Create a study's MLflow experiment, marked so that its UI shows runs and curves."""
        tags = {"mlflow.experimentKind": "custom_model_development"}
        local = "MLFLOW_TRACKING_URI" not in os.environ
        artifacts = (DEFAULT_STORE / "artifacts").absolute().as_uri() if local else None
        return self._client.create_experiment(name, artifact_location=artifacts, tags=tags)

    def _send_metrics(self, sent: dict[str, Any]) -> None:
        """Send new rows and note each request, so that none is sent twice."""
        from mlflow.entities import Metric

        rows = read_jsonl(self.folder / "metrics.jsonl")
        new = [row for row in rows if row["iteration"] > sent["iteration"]]
        now, size = int(time.time() * 1000), _BATCH // len(METRICS)
        for start in range(0, len(new), size):
            part = new[start : start + size]
            metrics = [
                Metric(name, row[name], now, row["iteration"])
                for row in part
                for name in METRICS
                if row[name] is not None
            ]
            self._client.log_batch(sent["run_id"], metrics=metrics)
            sent["iteration"] = part[-1]["iteration"]
            write_json(self.note, sent)

    def _send_samples(self, sent: dict[str, Any]) -> None:
        """Append new samples to the run's table; MLflow's UI shows it across runs."""
        rows = read_jsonl(self.folder / "samples.jsonl")
        new = rows[sent["samples"] :]
        if new:
            columns = {key: [row[key] for row in new] for key in ("iteration", "prompt", "answer")}
            self._client.log_table(sent["run_id"], columns, "samples.json")
            sent["samples"] = len(rows)
            write_json(self.note, sent)

    def _send_figures(self, run_id: str) -> None:
        """Send train.json; its own time as timestamp lets MLflow drop what it already has."""
        file = self.folder / "train.json"
        if file.exists():
            self._client.log_artifact(run_id, str(file))
            written = int(file.stat().st_mtime * 1000)
            for name, value in read_json(file).items():
                if isinstance(value, int | float):
                    self._client.log_metric(run_id, f"total_{name}", value, timestamp=written)

    def _tags(self) -> dict[str, str]:
        experiment = self.experiment
        return {
            "study": experiment.study,
            "variant": experiment.variant or "",
            "base_id": experiment.base_id,
            "data_id": experiment.data_id,
            "train_id": experiment.train_id,
            "git_commit": git_commit(),
            **{f"version.{name}": number for name, number in package_versions().items()},
        }


def git_commit() -> str:
    """Return the checked-out commit, with `-dirty` if files differ from it; empty without git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.strip()


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return dotted keys and values as text, cut to the length that MLflow keeps."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            pairs.append((f"{prefix}{key}", text[:_VALUE_LENGTH]))
    return pairs


def _params(pairs: list[tuple[str, str]]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(key, value) for key, value in pairs]
