"""What an adapter and a merged model have in common: their origin, tokenizer, card and manifest."""

import shutil
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, sha256, write_json, write_text
from snaketune.core.manifest import write_manifest
from snaketune.experiment.resolved import Resolved
from snaketune.export.card import Kind, write_card


def describe(checkpoint: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint tells of its training, with the run's figures if it is the end."""
    about = state["about"] | {"iteration": state["iteration"]}
    file = checkpoint.parent / "train.json"
    figures = read_json(file) if file.exists() else {}
    return about | {"figures": figures if figures.get("iterations") == state["iteration"] else {}}


def require_same_base(base: Path, about: dict[str, Any], trained: Path) -> None:
    """Refuse a base that something was not trained on.

    Args:
        base: The folder of a base model.
        about: What the trained weights tell of their training.
        trained: Where they are.

    Raises:
        UserError: The base's provenance is another than the one they name.
    """
    provenance = base / "provenance.json"
    if provenance.exists() and sha256(provenance) == about["base_sha256"]:
        return
    is_merged = (base / "snaketune.json").exists()
    found = f"{base}, which is a merged model" if is_merged else str(base)
    raise UserError(
        f"{trained} was trained on base model {about['base_id']}, not on {found}.\n"
        f"  Fix: use --base store/models/{about['base_id']}"
    )


def finish(
    folder: Path, kind: Kind, base: Path, about: dict[str, Any], experiment: Resolved | None
) -> None:
    """Add tokenizer, chat template, snaketune.json, model card and, last, manifest.json.

    Args:
        folder: With the weights and their configuration.
        experiment: What the model card tells of; None for no card.
    """
    for pattern in ("tokenizer*", "special_tokens_map.json", "*.model"):
        for file in base.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    write_text(folder / "chat_template.jinja", about["template"]["text"])
    write_json(folder / "snaketune.json", about)
    if experiment:
        write_card(folder, kind, about, experiment, base)
    write_manifest(folder)
