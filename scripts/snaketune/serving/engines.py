"""Other servers for who has them: they serve a merged model, faster on a GPU than our own."""

import importlib.util
import sys
from pathlib import Path

from snaketune.core.errors import UserError
from snaketune.serving.artifacts import ServedModel

ENGINES = ("vllm", "lmdeploy")


def command(engine: str, model: ServedModel, port: int) -> list[str]:
    """Return what starts another server with an experiment's merged model, on 127.0.0.1 alone.

    Template, system message and end tokens lie in the merged model's folder, where both look.

    Args:
        engine: One of ENGINES.

    Raises:
        UserError: It is not installed, or the model is a base or not merged.
    """
    if importlib.util.find_spec(engine) is None:
        raise UserError(f"{engine} is not installed.\n  Fix: pip install {engine}")
    if model.is_base:
        raise UserError(
            f"--engine {engine} serves an experiment, and {model.name} is a base model.\n"
            "  Fix: name an experiment"
        )
    name = model.name
    merged = Path("experiments") / name / "merged"
    if not (merged / "snaketune.json").exists():
        raise UserError(f"{engine} serves a merged model.\n  Fix: snakemake {merged}")
    folder = str(merged)
    where = ["127.0.0.1", str(port)]
    if engine == "vllm":
        program = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", folder]
        return [*program, "--served-model-name", name, "--host", where[0], "--port", where[1]]
    program = [sys.executable, "-m", "lmdeploy", "serve", "api_server", folder]
    return [*program, "--model-name", name, "--server-name", where[0], "--server-port", where[1]]
