"""The model registry: a merged model as a version that MLflow loads and serves.

Weights are stored once. MLflow's `log_model` would copy them twice, to a temporary folder and from
there; here it makes its model of everything but the weights, and these are hard links where the
store is on the same disk, else one copy or upload. Nothing is loaded into memory.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.files import link_or_copy, read_json, sha256, write_json
from snaketune.core.layout import MANIFEST
from snaketune.core.manifest import Manifest, require_intact
from snaketune.experiment.resolved import read_resolved
from snaketune.tracking import mlflow_adapter, mlflow_client
from snaketune.tracking.tracked_run import TrackedRun

log = logging.getLogger(__name__)

PACKAGES = ("mlflow", "torch", "transformers", "accelerate", "safetensors", "tokenizers")
"""What loading needs; MLflow pins them in the model, at the versions that are installed."""

GENERATION = {"do_sample": False, "max_new_tokens": 256}
"""How a served model answers: greedily, as everywhere in SnakeTune."""

_UPLOAD_SECONDS = 600
"""How long a server may be silent: it answers when it has stored a whole file of weights."""

_CARD = "README.md"
_DESCRIPTION_LENGTH = 5000
"""Characters that a registry's database keeps."""


def register(merged: Path, checkpoints: Path, record: Path) -> None:
    """Register a merged model under its experiment's name, and write down what it is there.

    A model that the registry has already is not sent again.

    Args:
        merged: experiments/X/merged or iter_N/merged.
        checkpoints: experiments/X/checkpoints: its run becomes the version's source.
        record: JSON, written last: name, version, URI to load it by, run and ids.

    Raises:
        UserError: The folder is not as its manifest says, or needs code to be loaded; or MLflow
            cannot be reached or refuses.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{_UPLOAD_SECONDS}")
    require_intact(merged)
    _refuse_code(merged)
    run = TrackedRun(checkpoints, read_resolved(checkpoints / "resolved.yaml"))
    with _explained():
        run.catch_up()
        found = _registered(run, merged) or _send(run, merged)
    name, number = found.name, found.version
    write_json(
        record,
        {
            "name": name,
            "version": int(number),
            "model_uri": f"models:/{name}/{number}",
            "run_id": run.run_id,
            "tags": found.tags,
            "tracking_uri": mlflow_client.shown_uri(),
        },
    )
    log.info("registered: mlflow.transformers.load_model('models:/%s/%s')", name, number)


@contextmanager
def _explained() -> Iterator[None]:
    """Say which server did not take a model, and what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # MLflow raises many kinds
        why = mlflow_client.reason(error)
        raise UserError(
            f"MLflow at {mlflow_client.shown_uri()} did not accept the model: {why}\n"
            f"  {mlflow_client.FIX}, then run the same command again."
        ) from error


def _refuse_code(merged: Path) -> None:
    """Refuse a model that a loader would need code for: MLflow trusts what it has stored.

    Raises:
        UserError: Its config names classes of its own, or Python files are beside it.
    """
    config = read_json(merged / "config.json")
    if "auto_map" in config or list(merged.rglob("*.py")):
        raise UserError(
            f"{merged} brings code of its own, which MLflow would run when it loads the model.\n"
            "  Fix: register models that transformers knows without it."
        )


def _registered(run: TrackedRun, merged: Path) -> Any:
    """Return the version that has these very files, if there is one."""
    wanted = f"name = '{run.experiment.name}' and tags.manifest_sha256 = '{_digest(merged)}'"
    found = run.client.search_model_versions(wanted)
    return found[0] if found else None


def _send(run: TrackedRun, merged: Path) -> Any:
    """Log the model and register it; a model that was not sent whole is marked as failed."""
    from mlflow.entities import LoggedModelOutput

    name, connection = run.experiment.name, run.client
    study_id = connection.get_run(run.run_id).info.experiment_id
    tags = _tags(run, merged)
    model = connection.create_logged_model(study_id, name, run.run_id, tags, model_type="causal-lm")
    try:
        _store(connection, model, merged, name)
    except BaseException:
        connection.finalize_logged_model(model.model_id, "FAILED")
        raise
    connection.finalize_logged_model(model.model_id, "READY")
    connection.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
    if not connection.search_registered_models(f"name = '{name}'"):
        connection.create_registered_model(name, {"study": run.experiment.study})
    return connection.create_model_version(
        name,
        model.artifact_location,
        run_id=run.run_id,
        tags=tags,
        description=_card_text(merged)[:_DESCRIPTION_LENGTH],
        model_id=model.model_id,
    )


def _store(connection: Any, model: Any, merged: Path, name: str) -> None:
    """Put a model's files where MLflow keeps them: directly, or by way of its server."""
    if folder := mlflow_adapter.local_folder(model.artifact_location):
        _build(folder, model, merged, name)
        return
    # beside the model: there the weights can be linked
    with tempfile.TemporaryDirectory(dir=merged.parent, prefix=".mlflow.") as scratch:
        _build(Path(scratch) / "model", model, merged, name)
        connection.log_model_artifacts(model.model_id, str(Path(scratch) / "model"))


def _build(path: Path, model: Any, merged: Path, name: str) -> None:
    """Make MLflow's model folder: what `save_model` makes of all but the weights, then these."""
    import mlflow.transformers
    from huggingface_hub import ModelCard
    from mlflow.models import Model

    made = Model(model_uuid=model.model_id, run_id=model.source_run_id, model_id=model.model_id)
    made.artifact_path = model.artifact_location
    files = [*Manifest.of(merged).names, MANIFEST]
    weights = [file for file in files if file.endswith(".safetensors")]
    with tempfile.TemporaryDirectory() as light:
        for file in set(files) - set(weights):
            (Path(light) / file).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(merged / file, Path(light) / file)
        with mlflow_adapter.pipeline_class():
            mlflow.transformers.save_model(
                light,
                str(path),
                task="llm/v1/chat",
                model_card=ModelCard.load(merged / _CARD),
                mlflow_model=made,
                model_config=GENERATION,
                pip_requirements=[f"{package}=={version(package)}" for package in PACKAGES],
            )
    for file in weights:
        link_or_copy(merged / file, path / "model" / file)
    made.flavors["transformers"]["source_model_name"] = name  # not a temporary folder's
    made.model_size_bytes = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    made.save(str(path / "MLmodel"))
    (path / "LICENSE.txt").unlink()  # says that none was found on a hub; the card names it


def _tags(run: TrackedRun, merged: Path) -> dict[str, str]:
    about = read_json(merged / "snaketune.json")
    experiment = run.experiment
    return {
        "study": experiment.study,
        "variant": experiment.variant or "",
        "train_id": experiment.train_id,
        "data_id": experiment.data_id,
        "base_id": experiment.base_id,
        "iteration": str(about["iteration"]),
        "manifest_sha256": _digest(merged),
    }


def _digest(merged: Path) -> str:
    return sha256(merged / MANIFEST)


def _card_text(merged: Path) -> str:
    """Return the model card without its YAML head."""
    from huggingface_hub import ModelCard

    return ModelCard.load(merged / _CARD).text.strip()
