"""Earlier trainings, as their folders tell of them, and the settings each was made with."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.layout import RunPaths
from snaketune.experiment.affects import Affects
from snaketune.experiment.experiment import Source
from snaketune.experiment.resolved import Resolved, read_resolved
from snaketune.experiment.settings import Settings, decisive, differing, flat

_DATA = (Affects.BASE, Affects.DATA)
_RESULT = (*_DATA, Affects.WEIGHTS, Affects.RESULT)

_DAMAGED = (UserError, AttributeError, KeyError, TypeError, ValueError)
"""What reading a file raises that is not what its stage writes."""

_TAIL = 64 * 1024
"""Bytes of the end of metrics.jsonl that tell the pace of a run that is not finished."""


@dataclass(frozen=True)
class Run:
    """A training that is there, to its end or not.

    Attributes:
        settings: What it was trained with, by dotted key.
        seconds: Of the iterations that are counted.
        iterations, tokens: How many that are.
        peak: Bytes of memory at the most.
        checkpoint: Bytes of one.
    """

    name: str
    folder: Path
    base_id: str
    settings: Settings
    device: str
    finished: bool
    seconds: float
    iterations: int
    tokens: int
    peak: int
    checkpoint: int


def settings_of(resolved: Mapping[str, Any]) -> Settings:
    """Return the settings by dotted key that a resolved.yaml's content tells.

    Raises:
        KeyError, TypeError, ValueError: It is of another version, and lacks what is needed.
    """
    config = {key: value for key, value in resolved["config"].items() if key not in _NOT_FLAT}
    base = (resolved["base"].get(key) for key in ("source", "revision", "sha256"))
    sources = tuple(Source.model_validate(source) for source in resolved["sources"])
    own = {"model": " ".join(filter(None, base)), "data": sources}
    return own | {"deepspeed_json": resolved.get("deepspeed_json")} | dict(flat(config, ""))


_NOT_FLAT = ("description", "data", "model")


def of_data(key: str) -> bool:
    """Whether a setting, by dotted key, decides the processed data."""
    return key in decisive((), *_DATA)


def changes(before: Settings, now: Settings) -> dict[str, tuple[Any, Any]]:
    """The settings that decide the result of training and differ, with both values."""
    decide = {*decisive((before, now), *_RESULT), "deepspeed_json"}
    found = differing({"before": before, "now": now})
    return {key: (v["before"], v["now"]) for key, v in found.items() if key in decide}


def last_run(checkpoints: Path) -> tuple[Resolved, Settings] | None:
    """Return what a checkpoints folder says its run was trained with, None if it does not."""
    try:
        resolved = read_resolved(checkpoints / "resolved.yaml")
        values = resolved.values | {"config": resolved.config.model_dump(mode="json")}
        return resolved, settings_of(values)
    except _DAMAGED:
        return None


def past_runs(root: Path) -> Iterator[Run]:
    """Yield the runs below experiments/, set aside ones too; those that tell nothing are left."""
    for pattern in ("*/checkpoints", "*/checkpoints/superseded/*"):
        for folder in sorted(root.glob(pattern)):
            if run := _read(folder):
                yield run


def _read(folder: Path) -> Run | None:
    """Return the run in a folder, None if it tells nothing or is damaged."""
    try:
        figures = _figures(folder)
        found = last_run(folder) if figures else None
        return _run(folder, *found, figures) if figures and found else None
    except _DAMAGED:
        return None


def _run(folder: Path, resolved: Resolved, settings: Settings, figures: Mapping[str, Any]) -> Run:
    sizes = [file.stat().st_size for file in RunPaths(folder).kept().values()]
    on_gpu = figures.get("peak_allocated_bytes")
    return Run(
        name=resolved.name,
        folder=folder,
        base_id=resolved.base_id,
        settings=settings,
        device="gpu" if on_gpu else "cpu",
        finished=(folder / "train.json").exists(),
        seconds=figures["training_seconds"],
        iterations=figures["iterations"],
        tokens=figures["tokens"],
        peak=on_gpu or figures["peak_rss_bytes"],
        checkpoint=max(sizes, default=0),
    )


def _figures(folder: Path) -> Mapping[str, Any] | None:
    """Return a run's figures: of all iterations if it is finished, else of the last ones."""
    told = read_json(folder / "train.json") if (folder / "train.json").exists() else {}
    if told.get("training_seconds") and told.get("iterations"):
        return told
    rows = _last_rows(folder / "metrics.jsonl")
    if not rows or "time_seconds" not in rows[-1] or "peak_rss_bytes" not in rows[-1]:
        return None
    peaks = [key for key in ("peak_allocated_bytes", "peak_rss_bytes") if key in rows[-1]]
    return {
        "iterations": len(rows),
        "tokens": sum(row["tokens"] for row in rows),
        "training_seconds": sum(row["time_seconds"] for row in rows),
        **{key: max(row[key] for row in rows) for key in peaks},
    }


def _last_rows(path: Path) -> list[dict[str, Any]]:
    """Return the last rows of a JSON Lines file; the first and last line read may be cut."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(0, size - _TAIL))
        lines = file.read().split(b"\n")[:-1]
    return [json.loads(line) for line in lines[1 if size > _TAIL else 0 :]]
