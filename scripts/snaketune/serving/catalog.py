"""Which models there are to serve: what is built, and nothing else. Imports no torch."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.layout import RunPaths
from snaketune.serving.artifacts import STORE, context_length


def available(root: Path = Path("experiments"), store: Path = STORE) -> list[str]:
    """Return the names that can be served: each experiment, its checkpoints, last the bases.

    A kept checkpoint is `X/iter_N`, the newest first: exported, or still a .pth beside an adapter
    of the same training. What is damaged, or lacks its base, is left out.

    Args:
        root: The folder of the experiments.
        store: The folder of the base models.
    """
    folders = (file.parent for file in store.glob("*/provenance.json"))
    bases = sorted(folder.name for folder in folders if _tells_its_context(folder))
    found = [name for folder in sorted(root.glob("*/")) for name in _models(folder, set(bases))]
    return found + bases


def _tells_its_context(base: Path) -> bool:
    try:
        return context_length(base) > 0
    except UserError:
        return False


def _models(folder: Path, bases: set[str]) -> Iterator[str]:
    """Yield what an experiment's folder offers: its end, then its checkpoints."""
    if _about(folder, bases):
        yield folder.name
    exported = {
        int(name[1])
        for each in folder.glob("iter_*/")
        if (name := re.fullmatch(r"iter_([1-9]\d*)", each.name)) and _about(each, bases)
    }
    for iteration in sorted(exported | _unexported(folder, bases), reverse=True):
        yield f"{folder.name}/iter_{iteration}"


def _about(folder: Path, bases: set[str]) -> dict[str, Any] | None:
    """Return what an adapter, or else a merged model, tells of itself, if its base is there too.

    A damaged adapter is not passed over for the merged model: the server takes the adapter.
    """
    for kind in ("adapter", "merged"):
        if (file := folder / kind / "snaketune.json").exists():
            about = _read(file) or {}
            whole = isinstance(about.get("template"), dict)
            return about if whole and str(about.get("base_id")) in bases else None
    return None


def _unexported(folder: Path, bases: set[str]) -> set[int]:
    """Return the iterations of the checkpoints that are of the training of the adapter."""
    adapter = _read(folder / "adapter" / "snaketune.json")
    run = _read(folder / "checkpoints" / "run.json")
    same = adapter and run and adapter.get("train_id") == run.get("train_id")
    if not same or not _about(folder, bases):
        return set()
    return set(RunPaths(folder / "checkpoints").kept())


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = read_json(file)
    except (UserError, OSError):
        return None
    return found if isinstance(found, dict) else None
