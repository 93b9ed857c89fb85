"""Other servers for who has them: they serve a merged model, faster on a GPU than our own."""

import importlib.util
import sys

from snaketune.errors import UserError
from snaketune.serving.artifacts import Served

ENGINES = ("vllm", "lmdeploy")


def command(engine: str, model: Served, port: int) -> list[str]:
    """Return what starts another server with a merged model, on 127.0.0.1 alone.

    Template, system message and end tokens lie in the merged model's folder, where both look.

    Args:
        engine: One of ENGINES.

    Raises:
        UserError: It is not installed, or the model is not merged.
    """
    if importlib.util.find_spec(engine) is None:
        raise UserError(f"{engine} is not installed.\n  Fix: pip install {engine}")
    merged, name = model.folder.parent / "merged", model.name
    if not (merged / "snaketune.json").exists():
        raise UserError(f"{engine} serves a merged model.\n  Fix: snakemake {merged}")
    folder = str(merged)
    where = ["127.0.0.1", str(port)]
    if engine == "vllm":
        program = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", folder]
        return [*program, "--served-model-name", name, "--host", where[0], "--port", where[1]]
    program = [sys.executable, "-m", "lmdeploy", "serve", "api_server", folder]
    return [*program, "--model-name", name, "--server-name", where[0], "--server-port", where[1]]
