"""The parts of MLflow that tracking/mlflow_adapter.py relies on, and that are no public API.

A failure here means that this version of MLflow (or transformers) has changed one of them.
"""

import inspect
from pathlib import Path

import mlflow
import pytest
from transformers.pipelines import SUPPORTED_TASKS

from snaketune.tracking import mlflow_adapter

ADVICE = f"MLflow {mlflow.__version__} has changed: adapt tracking/mlflow_adapter.py"


def test_monitors_measure_the_machine():
    measured = {}
    for monitor in mlflow_adapter.machine_monitors():
        monitor.collect_metrics()
        measured |= monitor.aggregate_metrics()
        monitor.clear_metrics()
    assert {"cpu_utilization_percentage", "system_memory_usage_percentage"} <= measured.keys(), (
        ADVICE
    )


@pytest.mark.parametrize(
    "location, folder",
    [("file:///tmp/a%20b", Path("/tmp/a b")), ("/tmp/a", Path("/tmp/a")), ("s3://bucket/a", None)],
)
def test_local_locations_are_folders(location, folder):
    assert mlflow_adapter.local_folder(location) == folder, ADVICE


def test_server_locations_are_no_folders():
    assert mlflow_adapter.local_folder("mlflow-artifacts:/1/models/m/artifacts") is None, ADVICE


def test_pipeline_class_is_patched_and_restored():
    task = SUPPORTED_TASKS["text-generation"]
    before = task["impl"]
    with mlflow_adapter.pipeline_class():
        assert inspect.isclass(task["impl"]), "transformers has changed its table of tasks"
    assert task["impl"] is before


def test_tracing_client_takes_finished_spans(tmp_path):
    client = mlflow_adapter.tracing_client(f"sqlite:///{tmp_path}/mlflow.db")
    for name, first in (("log_spans", "location"), ("start_trace", "trace_info")):
        parameters = list(inspect.signature(getattr(client, name)).parameters)
        assert parameters[0] == first, f"{ADVICE}: TracingClient.{name}({', '.join(parameters)})"


def test_log_table_lists_tables_in_the_same_tag():
    source = inspect.getsource(mlflow.tracking.client)
    assert "MLFLOW_LOGGED_ARTIFACTS" in source, ADVICE
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

    assert MLFLOW_LOGGED_ARTIFACTS == mlflow_adapter.TABLES_TAG, ADVICE


def test_the_ui_reads_saved_views_from_our_tag():
    scripts = Path(mlflow.__file__).with_name("server") / "js/build/static/js"
    files = [file for file in scripts.rglob("*.js") if mlflow_adapter.VIEW_TAG in file.read_text()]
    assert files, f"{ADVICE}: no file of the UI names {mlflow_adapter.VIEW_TAG}"
