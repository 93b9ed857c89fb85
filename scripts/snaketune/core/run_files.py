"""Whose run a checkpoints folder holds, and how far it is. Imports no torch: a plan is quick."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snaketune.core.files import read_json, sha256


def run_identity(train_id: str, base: Path, data: Path, start: Path | None) -> dict[str, str]:
    """Return what must be equal for a checkpoint to be resumed, as run.json tells it.

    Args:
        base: The base model's folder, with provenance.json.
        data: The processed data's folder, with data.json.
        start: The checkpoint of another experiment whose weights are the first.
    """
    own = {
        "train_id": train_id,
        "base_sha256": sha256(base / "provenance.json"),
        "data_sha256": sha256(data / "data.json"),
    }
    return own | ({"start_sha256": sha256(start.with_name("run.json"))} if start else {})


def superseded(checkpoints: Path, identity: Mapping[str, str]) -> Path:
    """Return where a run with other settings is kept."""
    name = "-".join(identity[key][:12] for key in sorted(identity, reverse=True))
    return checkpoints / "superseded" / name


def kept_checkpoints(folder: Path) -> dict[int, Path]:
    """Return a folder's files iter_N.pth by N."""
    files = ((re.fullmatch(r"iter_(\d+)\.pth", file.name), file) for file in folder.glob("*.pth"))
    return {int(match[1]): file for match, file in files if match}


@dataclass(frozen=True)
class Standing:
    """What training will find in its folder.

    Attributes:
        own: Where the files of this run are: the folder, or one below superseded/; None if nowhere.
        aside: Where an earlier run with other settings will be kept, if there is one.
        iteration: Of its own newest checkpoint, 0 if there is none.
    """

    own: Path | None = None
    aside: Path | None = None
    iteration: int = 0


def standing(checkpoints: Path, identity: Mapping[str, str]) -> Standing:
    """Return what a run would find, without reading its checkpoints."""
    marker = checkpoints / "run.json"
    current = read_json(marker) if marker.exists() else None
    aside = superseded(checkpoints, current) if current and current != identity else None
    places = [superseded(checkpoints, identity)] + ([checkpoints] if current == identity else [])
    own = next((place for place in places if kept_checkpoints(place)), None)
    return Standing(own, aside, max(kept_checkpoints(own)) if own else 0)
