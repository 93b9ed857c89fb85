"""MLflow stores and servers to send to, and what is in them."""

import shutil

import mlflow
import pytest

from fake_study import write_study
from mlflow_server import Server
from snaketune.tracking import mlflow_client as reach

SECRETS = {"HF_TOKEN": "hf_sEcReT1", "MLFLOW_TRACKING_PASSWORD": "sEcReT2"}


@pytest.fixture(scope="module")
def store(empty_store, tmp_path_factory):
    """The store that is used where MLFLOW_TRACKING_URI is not set, and secrets around it."""
    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setattr(reach, "DEFAULT_STORE", folder)
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module")
def client(store):
    return mlflow.MlflowClient(f"sqlite:///{store}/mlflow.db")


@pytest.fixture(scope="session")
def server(empty_store, tmp_path_factory):
    """A real MLflow server that all tests of a session share."""
    server = Server(tmp_path_factory.mktemp("server"))
    shutil.copyfile(empty_store, server.folder / "mlflow.db")
    yield server.start()
    server.kill()


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The checkpoints of a study's variants, by variant, below the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_study(tmp_path, f"study-{tmp_path.name}")


@pytest.fixture(scope="session")
def merge_run(base, data):
    """Return a function that merges a trained run, with the card of a model of its own."""
    from snaketune.experiment.resolved import read_resolved
    from snaketune.export.merge import merge

    def make(run) -> None:
        experiment = read_resolved(run.resolved)
        origin = {"source": "./tiny", "revision": None, "license": "Apache-2.0"}
        experiment.values.update(base=origin, sources=[])
        merge(base, run.export(), run.folder / "merged", experiment, data / "heldout.arrow")

    return make
