"""What the folders of an adapter and a merged model share: record, tokenizer, card, manifest."""

import shutil
from pathlib import Path

from snaketune.core.errors import UserError
from snaketune.core.files import sha256, write_text
from snaketune.core.layout import MODEL_RECORD, BasePaths, RunPaths, base_paths
from snaketune.core.manifest import write_manifest
from snaketune.experiment.resolved import Resolved
from snaketune.export.card import Kind, write_card
from snaketune.export.model_record import ModelRecord
from snaketune.models.checkpoint import CheckpointState
from snaketune.training.train_record import TrainRecord


def record_of_checkpoint(checkpoint: Path, state: CheckpointState) -> ModelRecord:
    """Describe a checkpoint; the run's figures belong to it only if it is the run's result."""
    file = RunPaths(checkpoint.parent).record
    figures = TrainRecord.read(file) if file.exists() else None
    if figures and figures.iterations != state["iteration"]:
        figures = None
    return ModelRecord(**state["about"], iteration=state["iteration"], figures=figures)


def require_same_base(base: Path, record: ModelRecord, trained: Path) -> None:
    """Refuse a base that the weights in `trained` do not belong to.

    Raises:
        UserError: The base's provenance differs from the one that the record names.
    """
    provenance = BasePaths(base).provenance
    if provenance.exists() and sha256(provenance) == record.base_sha256:
        return
    is_merged = (base / MODEL_RECORD).exists()
    actual = f"{base}, which is a merged model" if is_merged else str(base)
    raise UserError(
        f"{trained} was trained on base model {record.base_id}, not on {actual}.\n"
        f"  Fix: use --base {base_paths(record.base_id).folder}"
    )


def finish_folder(
    folder: Path, kind: Kind, base: Path, record: ModelRecord, experiment: Resolved | None
) -> None:
    """Add tokenizer, chat template, record, model card and, last, the manifest.

    Args:
        folder: With the weights and their configuration.
        experiment: What the model card describes; None for no card.
    """
    for pattern in ("tokenizer*", "special_tokens_map.json", "*.model"):
        for file in base.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    write_text(folder / "chat_template.jinja", record.template["text"])
    record.write(folder / MODEL_RECORD)
    if experiment:
        write_card(folder, kind, record, experiment, base)
    write_manifest(folder)
