"""Which files a data path names. The Snakefile asks, so nothing heavy is imported here."""

import glob
import json
import re
from pathlib import Path, PurePath

_HIDDEN = re.compile(r"_|\.[^.]")
_ABOUT_DATA = re.compile(r"README|(\w+_)?LICEN[SC]E")
_PROVENANCE = "provenance.json"
"""What `hub.fetch_dataset` writes beside the files it fetches."""


def data_files(path: Path) -> list[Path]:
    """Return the files a data path names: itself, those in a folder, or those a pattern matches.

    Of a folder that `datasets` wrote with save_to_disk these are the shards that its state.json
    names, of any other the files that hold data (`is_data`). In a pattern `**` is any depth.
    """
    if path.is_dir():
        return _saved_shards(path) or sorted(
            file for file in path.rglob("*") if file.is_file() and is_data(file.relative_to(path))
        )
    if path.exists():
        return [path]
    found = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute ones too)
    return sorted(file for file in found if file.is_file() and file.name != _PROVENANCE) or [path]


def is_data(file: PurePath) -> bool:
    """Tell whether a file, named as in its folder or archive, holds data.

    What is hidden or in a hidden folder does not, nor what tells about the data (README, LICENSE).
    """
    about = _ABOUT_DATA.match(file.name) or file.name == _PROVENANCE
    return not (about or any(map(_HIDDEN.match, file.parts)))


def _saved_shards(folder: Path) -> list[Path]:
    """Return the shards of a data set that `datasets` saved, none if a folder is something else."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return [folder / Path(part["filename"]).name for part in state["_data_files"]]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return []
