"""Other inference servers, if installed: faster than our own on a GPU, for merged models only."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from snaketune.core.errors import UserError
from snaketune.core.layout import MODEL_RECORD, ExperimentPaths
from snaketune.serving.artifacts import ServedModel

HOST = "127.0.0.1"


def _vllm(folder: Path, name: str, port: int) -> list[str]:
    program = ["-m", "vllm.entrypoints.cli.main", "serve", f"{folder}"]
    return [*program, "--served-model-name", name, "--host", HOST, "--port", f"{port}"]


def _lmdeploy(folder: Path, name: str, port: int) -> list[str]:
    program = ["-m", "lmdeploy", "serve", "api_server", f"{folder}"]
    return [*program, "--model-name", name, "--server-name", HOST, "--server-port", f"{port}"]


ENGINES: dict[str, Callable[[Path, str, int], list[str]]] = {"vllm": _vllm, "lmdeploy": _lmdeploy}
"""By the name of the package: the arguments of Python that serve a folder as a model's name on a
port. To support another server, add its function here; `serve.py --engine` follows."""


def engine_command(engine: str, model: ServedModel, port: int) -> list[str]:
    """Build the command that serves an experiment's merged model on 127.0.0.1.

    Template, system message and end tokens are in the merged model's folder, where engines look.

    Raises:
        UserError: The engine is not installed, or the model is a base or not merged.
    """
    if importlib.util.find_spec(engine) is None:
        raise UserError(f"{engine} is not installed.\n  Fix: pip install {engine}")
    if model.is_base:
        raise UserError(
            f"--engine {engine} serves experiments, and {model.name} is a base model.\n"
            "  Fix: name an experiment"
        )
    merged = ExperimentPaths(model.name).merged()
    if not (merged / MODEL_RECORD).exists():
        raise UserError(f"{engine} needs a merged model.\n  Fix: snakemake {merged}")
    return [sys.executable, *ENGINES[engine](merged, model.name, port)]
