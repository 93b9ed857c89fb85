"""A folder that OpenXLab's own client uploads: the files, and metafile.yml that names each.

The keys, and which of them must not be empty, are those that the client (PyPI: openxlab 0.1.3)
checks before `openxlab model create`; every file is one of its "models".
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from snaketune.core.errors import UserError
from snaketune.core.files import atomic_folder, require_free_space
from snaketune.core.layout import MANIFEST
from snaketune.publish.destination import File, announced

log = logging.getLogger(__name__)

METAFILE = "metafile.yml"
_CODE = "https://github.com/huggingface/transformers"  # what runs the model; it must be an address


def write_folder(folder: Path, files: Sequence[File], licence: str | None) -> None:
    """Copy the files into a folder of their own, with the metafile.

    Raises:
        UserError: The folder holds something else, or the disk is full.
    """
    refuse_others_folder(folder)
    require_free_space(folder, sum(file.bytes for file in files), str(folder))
    with atomic_folder(folder) as temporary:
        for file in announced(files):
            (temporary / file.name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.path, temporary / file.name)
        with (temporary / METAFILE).open("w", encoding="utf-8") as stream:
            YAML().dump(metafile(folder.absolute().name, files, licence), stream)
    log.info(
        "%s is ready: pip install openxlab in an environment of its own, openxlab login, then "
        "in that folder: openxlab model create --model-repo=USER/NAME -s ./%s",
        folder,
        METAFILE,
    )


def metafile(name: str, files: Sequence[File], licence: str | None) -> dict[str, object]:
    """Return metafile.yml's content."""
    return {
        "Collections": [
            {
                "Name": name,
                "License": licence or "other",
                "Framework": ["PyTorch"],
                "Paper": {},
                "Code": {"URL": _CODE},
            }
        ],
        "Models": [
            {
                "Name": file.name,
                "Results": [{"Task": "Question Answering", "Dataset": "none"}],
                "Weights": file.name,
            }
            for file in files
        ],
    }


def refuse_others_folder(folder: Path) -> None:
    """Leave alone a folder that was not made here.

    Raises:
        UserError: It is a file, or holds something without a metafile and a manifest.
    """
    ours = all((folder / name).is_file() for name in (METAFILE, MANIFEST))
    if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(
            f"{folder} is there already and was not made by publishing; it is left alone.\n"
            "  Fix: name a new folder in to=openxlab:FOLDER."
        )
