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

SECONDS_AFTER_FAILURE = 600
"""How long to leave a server alone that did not answer: each attempt holds training up."""

METRICS = (
    "loss",
    "update_loss",
    "lr",
    "grad_norm",
    "time_seconds",
    "data_seconds",
    "tokens_per_second",
    "supervised_tokens_per_second",
    "model_flops_utilisation",
    "peak_rss_bytes",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
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
        self._sent: dict[str, Any] = {}
        self._next_push = 0.0
        self._warned = False

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
        """Send all that is missing, and the state of a run that nobody trains any more.

        Raises:
            Exception: Whatever MLflow raises when the server cannot be reached.
        """
        self._open_run()
        finished = (self.folder / "train.json").exists()
        status = self._client.get_run(self._sent["run_id"]).info.status
        if finished or status == "RUNNING":
            status = "FINISHED" if finished else "FAILED"
        self._send(status)

    def _try(self, status: str) -> None:
        """Send; a server that cannot be reached costs one warning and no training."""
        pause = SECONDS_BETWEEN
        try:
            self._send(status)
        except Exception as error:  # any failure of the mirror is less than a lost run
            pause = SECONDS_AFTER_FAILURE
            self._warn(error)
        self._next_push = time.monotonic() + pause

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            log.warning(
                "MLflow at %s does not answer (%s). Training goes on and keeps all figures in %s; "
                "should MLflow lack some at the end, fill them in with: snakemake track",
                shown_uri(),
                reason(error),
                self.folder,
            )
        self._warned = True

    def _send(self, status: str) -> None:
        self._open_run()
        run_id = self._sent["run_id"]
        self._send_metrics()
        self._send_validation()
        if status == "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
        else:
            self._send_samples()
            self._send_figures(run_id)
            self._client.set_terminated(run_id, status=status)

    def _open_run(self) -> None:
        """Connect, and find this run in MLflow or start one; parameters are sent once."""
        if self._sent.get("described"):
            return
        self._connect()
        self._sent = read_json(self.note) if self.note.exists() else {}
        if self._sent.get("tracking_uri") != shown_uri() or not self._exists(self._sent["run_id"]):
            study_id = self._experiment_id(self.experiment.study)
            run = self._client.create_run(
                study_id, run_name=self.experiment.name, tags=self._tags()
            )
            # noted at once: a server lost now must not cost a second run
            self._note(tracking_uri=shown_uri(), run_id=run.info.run_id, iteration=0, samples=0)
        if not self._sent.get("described"):
            self._describe(self._sent["run_id"])
            self._note(described=True)

    def _note(self, **news: Any) -> None:
        self._sent |= news
        write_json(self.note, self._sent)

    def _exists(self, run_id: str) -> bool:
        """Tell whether MLflow still has a run: someone may have deleted it, or the whole store."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _describe(self, run_id: str) -> None:
        """Send parameters and resolved.yaml."""
        params = _flatten(self.experiment.config.model_dump(mode="json"))
        for start in range(0, len(params), _PARAMS):
            self._client.log_batch(run_id, params=_params(params[start : start + _PARAMS]))
        self._client.log_artifact(run_id, str(self.folder / "resolved.yaml"))

    def _connect(self) -> None:
        """Make an MLflow client that gives up quickly on a dead server."""
        if self._client is None:
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
            from mlflow import MlflowClient

            if "MLFLOW_TRACKING_URI" not in os.environ:
                DEFAULT_STORE.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(tracking_uri())

    def _experiment_id(self, study: str) -> str:
        """Return the id of a study's MLflow experiment, making or undeleting it."""
        found = self._client.get_experiment_by_name(study)
        if found is None:
            return self._create_experiment(study)
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _create_experiment(self, study: str) -> str:
        """Create an MLflow experiment, marked so that its UI shows runs and curves."""
        tags = {"mlflow.experimentKind": "custom_model_development"}
        local = "MLFLOW_TRACKING_URI" not in os.environ
        artifacts = (DEFAULT_STORE / "artifacts").absolute().as_uri() if local else None
        return self._client.create_experiment(study, artifact_location=artifacts, tags=tags)

    def _send_metrics(self) -> None:
        """Send new rows and note each request, so that none is sent twice."""
        from mlflow.entities import Metric

        rows = read_jsonl(self.folder / "metrics.jsonl")
        new = [row for row in rows if row["iteration"] > self._sent["iteration"]]
        now, size = int(time.time() * 1000), _BATCH // len(METRICS)
        for start in range(0, len(new), size):
            part = new[start : start + size]
            metrics = [
                Metric(name, row[name], now, row["iteration"])
                for row in part
                for name in METRICS
                if row.get(name) is not None
            ]
            self._client.log_batch(self._sent["run_id"], metrics=metrics)
            self._note(iteration=part[-1]["iteration"])

    def _send_validation(self) -> None:
        """Send the held-out losses that were measured since."""
        rows = read_jsonl(self.folder / "validation.jsonl")
        for row in rows[self._sent.get("validation", 0) :]:
            step, loss = row["iteration"], row["heldout_loss"]
            self._client.log_metric(self._sent["run_id"], "heldout_loss", loss, step=step)
        self._note(validation=len(rows))

    def _send_samples(self) -> None:
        """Append new samples to the run's table; MLflow's UI shows it across runs."""
        rows = read_jsonl(self.folder / "samples.jsonl")
        new = rows[self._sent["samples"] :]
        if new:
            columns = {key: [row[key] for row in new] for key in ("iteration", "prompt", "answer")}
            self._client.log_table(self._sent["run_id"], columns, "samples.json")
            self._note(samples=len(rows))

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
