"""Write a finished model again with files of another size."""

import logging
import shutil
from pathlib import Path

from snaketune.core.files import atomic_folder, require_free_space
from snaketune.core.layout import MANIFEST
from snaketune.core.manifest import Manifest, require_intact, write_manifest
from snaketune.export.weight_delta import in_blocks
from snaketune.models.weights import INDEX, Stored, write_weights

log = logging.getLogger(__name__)


def split(model: Path, output: Path, max_shard_size: int | str = 1) -> None:
    """Write a model's tensors into files of at most some size, and all else as it is.

    Args:
        model: A merged model's folder, with its manifest.
        output: The folder to write.
        max_shard_size: Bytes, or as in `2GB`; a larger tensor has a file of its own, so 1 gives
            each tensor its own.

    Raises:
        UserError: The model is not as it was written, or there is too little disk space.
    """
    require_intact(model)
    stored = Stored(model)
    needed = sum(shape.nbytes for shape in stored.shapes.values())
    require_free_space(output.parent, needed + 2**24, "the split model")
    with atomic_folder(output) as folder:
        write_weights(folder, stored.shapes, lambda name: in_blocks(stored[name]), max_shard_size)
        for name in Manifest.of(model).names:
            if not name.endswith(".safetensors") and name not in (INDEX, MANIFEST):
                shutil.copyfile(model / name, folder / name)
        write_manifest(folder)
        files = len(list(folder.glob("*.safetensors")))
    log.info("%s holds %d tensors in %d files", output, len(stored), files)
