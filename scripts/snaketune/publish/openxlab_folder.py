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
from snaketune.publish.destination import PublishedFile, logged

log = logging.getLogger(__name__)

METAFILE = "metafile.yml"
_CODE = "https://github.com/huggingface/transformers"  # of what runs the model; must be a URL


def write_folder(folder: Path, files: Sequence[PublishedFile], licence: str | None) -> None:
    """Copy the files into a folder of their own, with the metafile.

    Raises:
        UserError: The folder holds something else, or disk space is insufficient.
    """
    require_own_folder(folder)
    require_free_space(folder, sum(file.bytes for file in files), str(folder))
    with atomic_folder(folder) as temporary:
        for file in logged(files):
            (temporary / file.name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.path, temporary / file.name)
        with (temporary / METAFILE).open("w", encoding="utf-8") as stream:
            YAML().dump(metafile(folder.absolute().name, files, licence), stream)
    log.info(
        "%s is ready. Next: pip install openxlab (in its own environment), openxlab login, then in "
        "that folder: openxlab model create --model-repo=USER/NAME -s ./%s",
        folder,
        METAFILE,
    )


def metafile(name: str, files: Sequence[PublishedFile], licence: str | None) -> dict[str, object]:
    """Describe the files in the way that `openxlab model create` validates."""
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


def require_own_folder(folder: Path) -> None:
    """Refuse to replace a folder that `write_folder` did not make.

    Raises:
        UserError: It is a file, or a folder with content but without metafile and manifest.
    """
    ours = all((folder / name).is_file() for name in (METAFILE, MANIFEST))
    if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(
            f"{folder} already exists and was not created by publishing, so it is not replaced.\n"
            "  Fix: name a new folder in to=openxlab:FOLDER."
        )
