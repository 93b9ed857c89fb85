"""The parts of MLflow and its neighbours that are no public API. Nothing else imports them.

Checked with MLflow 3.17.0 and 3.17.2. tests/tracking/test_mlflow_adapter.py names the part that a
new version has changed. Imports of MLflow take seconds, so they are inside the functions.
"""

import contextlib
from pathlib import Path
from typing import Any
from unittest import mock

VIEW_TAG = "mlflow.sharedViewState."
"""Begins the tag of an experiment in which MLflow's UI keeps a saved view (MLflow's source:
mlflow/server/js, "Views"). A UI that doesn't know it ignores it."""

TABLES_TAG = "mlflow.loggedArtifacts"
"""The tag of a run that lists its tables; `log_table` writes it, and the UI reads it."""


def machine_monitors() -> list[Any]:
    """MLflow's monitors of the CPU and, if NVML finds any, of the GPUs.

    Its SystemMetricsMonitor, which is public, sends from a thread of its own that ends for good at
    the first failed request.
    """
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    monitors: list[Any] = [CPUMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no driver
        monitors.append(GPUMonitor())
    return monitors


def local_folder(location: str) -> Path | None:
    """The folder of an artifact location on this machine, None if a server keeps it."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    if not is_local_uri(location, is_tracking_or_registry_uri=False):
        return None
    return Path(local_file_uri_to_path(location))


def pipeline_class() -> Any:
    """Context manager: name the text-generation pipeline's class where `save_model` looks it up.

    MLflow 3.17 reads a class from transformers' table of tasks; transformers 5.23 and later have
    only its name there.
    """
    from transformers import TextGenerationPipeline
    from transformers.pipelines import SUPPORTED_TASKS

    return mock.patch.dict(SUPPORTED_TASKS["text-generation"], impl=TextGenerationPipeline)


def tracing_client(uri: str) -> Any:
    """MLflow's client for finished spans; the public API records while a function runs."""
    from mlflow.tracing.client import TracingClient

    return TracingClient(uri)
