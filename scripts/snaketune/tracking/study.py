"""A study's run in MLflow: the parent of its variants' runs, with their comparison as artifacts."""

import hashlib
import logging
import time
from pathlib import Path
from typing import Any

from snaketune.experiment.resolved import Resolved
from snaketune.tracking import mlflow_client

log = logging.getLogger(__name__)

_KIND, _DIGEST = "study", "compare_sha256"


def send_study(study: str, folder: Path) -> None:
    """Send a study's comparison to MLflow; a server that is away costs one warning.

    Args:
        study: Its name, as MLflow's experiment is called.
        folder: experiments/STUDY/compare.
    """
    with mlflow_client.tolerated(f"the comparison of {study}"):
        put_study(study, folder)


def put_study(study: str, folder: Path) -> None:
    """Send the files of a study's comparison, unless MLflow has the same ones already.

    Not those of the folder `now` in it: that page is of what was there at some moment.

    Raises:
        Exception: Whatever MLflow raises when the server cannot be reached.
    """
    connection = mlflow_client.connect()
    run_id = _parent(connection, mlflow_client.experiment_id(connection, study), study, "")
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != ".")
    digest = _digest(files)
    if connection.get_run(run_id).data.tags.get(_DIGEST) != digest:
        for file in files:
            connection.log_artifact(run_id, str(file), "compare")
        connection.set_tag(run_id, _DIGEST, digest)


def parent_run(connection: Any, experiment_id: str, experiment: Resolved) -> str:
    """Return the id of the run of a variant's study, making it if there is none."""
    words = experiment.config.description
    return _parent(connection, experiment_id, experiment.study, words)


def _parent(connection: Any, experiment_id: str, study: str, words: str) -> str:
    """Find or make a study's run. Variants that begin together agree on the oldest one."""
    if found := _parents(connection, experiment_id):
        return found[0]
    tags = {"kind": _KIND, "study": study, "mlflow.source.name": f"experiments/{study}.yaml"}
    tags |= {"mlflow.source.type": "LOCAL"}
    tags["mlflow.note.content"] = "\n\n".join(
        filter(None, [words, f"The study **{study}**: its variants are the runs below this one."])
    )
    now = int(time.time() * 1000)
    made = connection.create_run(experiment_id, now, tags, run_name=study).info.run_id
    connection.set_terminated(made, status="FINISHED")
    oldest = _parents(connection, experiment_id)[0]
    if oldest != made:
        connection.delete_run(made)
    return oldest


def _parents(connection: Any, experiment_id: str) -> list[str]:
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    runs = connection.search_runs([experiment_id], f"tags.kind = '{_KIND}'", order_by=order)
    return [run.info.run_id for run in runs]


def _digest(files: list[Path]) -> str:
    """Return a digest of the names and bytes of files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
