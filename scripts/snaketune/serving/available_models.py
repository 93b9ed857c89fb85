"""List the models that are built and can be served. Imports no torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.layout import (
    BASES,
    EXPERIMENTS,
    MODEL_RECORD,
    PROVENANCE,
    BasePaths,
    ExperimentPaths,
    iteration_name,
    iteration_number,
)
from snaketune.serving.artifacts import belongs_to_run, context_length


def available_models(root: Path = EXPERIMENTS, store: Path = BASES) -> list[str]:
    """Names of what can be served: each experiment, its checkpoints (newest first), last the bases.

    A kept checkpoint is `X/iter_N`: exported, or a .pth beside an adapter of the same run. Damaged
    folders, and models whose base is missing, are left out.

    Args:
        root: The folder of the experiments.
        store: The folder of the base models.
    """
    folders = (file.parent for file in store.glob(f"*/{PROVENANCE}"))
    bases = sorted(folder.name for folder in folders if _has_context_length(folder))
    experiments = [ExperimentPaths(folder.name, root) for folder in sorted(root.glob("*/"))]
    return [name for paths in experiments for name in _names(paths, set(bases))] + bases


def _has_context_length(base: Path) -> bool:
    try:
        return context_length(BasePaths(base)) > 0
    except UserError:
        return False


def _names(paths: ExperimentPaths, bases: set[str]) -> Iterator[str]:
    if _is_usable(paths, None, bases):
        yield paths.name
    numbers = (iteration_number(folder.name) for folder in paths.folder.glob("*/"))
    exported = {number for number in numbers if number and _is_usable(paths, number, bases)}
    for iteration in sorted(exported | _unexported(paths, bases), reverse=True):
        yield f"{paths.name}/{iteration_name(iteration)}"


def _is_usable(paths: ExperimentPaths, iteration: int | None, bases: set[str]) -> bool:
    """Whether there is an adapter, or else a merged model, that is whole and has its base.

    A merged model doesn't make up for a damaged adapter: the server takes the adapter.
    """
    for folder in (paths.adapter(iteration), paths.merged(iteration)):
        if (file := folder / MODEL_RECORD).exists():
            record = _read(file)
            return isinstance(record.get("template"), dict) and str(record.get("base_id")) in bases
    return False


def _unexported(paths: ExperimentPaths, bases: set[str]) -> set[int]:
    """Iterations of the checkpoints that belong to the same run as the adapter."""
    try:
        usable = belongs_to_run(paths.adapter() / MODEL_RECORD, paths.run)
    except (UserError, OSError, AttributeError):
        return set()
    return set(paths.run.kept()) if usable and _is_usable(paths, None, bases) else set()


def _read(file: Path) -> dict[str, Any]:
    try:
        record = read_json(file)
    except (UserError, OSError):
        return {}
    return record if isinstance(record, dict) else {}
