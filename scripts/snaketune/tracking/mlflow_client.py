"""Where MLflow keeps runs, how to reach it, and what to say when it does not answer.

A server that asks who one is gets MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
MLFLOW_TRACKING_TOKEN, from the environment: MLflow's client reads them, we never do.
"""

import logging
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

DEFAULT_STORE = Path("store/mlflow")

FIX = (
    "Fix: start the server or correct MLFLOW_TRACKING_URI (and, if it asks who you are, "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN)"
)


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


@contextmanager
def tolerated(what: str) -> Iterator[None]:
    """Let a block that talks to MLflow fail at the cost of one warning.

    Args:
        what: What MLflow then lacks, for the warning: `the report of X`.
    """
    try:
        yield
    except Exception as error:  # MLflow raises many kinds, and none is worth a finished stage
        log.warning(
            "MLflow at %s did not take %s (%s); send it later with: snakemake track",
            shown_uri(),
            what,
            reason(error),
        )


def connect() -> Any:
    """Return an MLflow client that gives up quickly on a dead server. The import takes seconds."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # with a password
    from mlflow import MlflowClient

    if "MLFLOW_TRACKING_URI" not in os.environ:
        DEFAULT_STORE.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri())


def experiment_id(client: Any, study: str) -> str:
    """Return the id of a study's MLflow experiment, making or undeleting it."""
    found = client.get_experiment_by_name(study)
    if found is None:
        return _create_experiment(client, study)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def is_active(client: Any, run_id: str) -> bool:
    """Tell whether MLflow still has a run: someone may have deleted it, or the whole store."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


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


def _create_experiment(client: Any, study: str) -> str:
    """Create an MLflow experiment, marked so that its UI shows runs and curves."""
    from mlflow.exceptions import MlflowException

    tags = {"mlflow.experimentKind": "custom_model_development"}
    local = "MLFLOW_TRACKING_URI" not in os.environ
    artifacts = (DEFAULT_STORE / "artifacts").absolute().as_uri() if local else None
    try:
        return client.create_experiment(study, artifact_location=artifacts, tags=tags)
    except MlflowException as error:  # another variant may have come first
        found = client.get_experiment_by_name(study)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return found.experiment_id
