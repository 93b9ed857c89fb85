"""Turn a checkpoint into an adapter in PEFT's format, without loading the base model."""

import logging
from pathlib import Path

from safetensors.torch import save_file

from snaketune.core.errors import UserError
from snaketune.core.files import atomic_folder, read_json
from snaketune.core.layout import BasePaths, ExperimentPaths
from snaketune.experiment.resolved import Resolved
from snaketune.export.model_folder import finish_folder, record_of_checkpoint, require_same_base
from snaketune.models.checkpoint import load_checkpoint
from snaketune.models.trainable import lora_config

log = logging.getLogger(__name__)


def export_adapter(
    checkpoint: Path, base: Path, output: Path, experiment: Resolved | None = None
) -> None:
    """Write adapter_model.safetensors, adapter_config.json, tokenizer, template and model card.

    Args:
        checkpoint: A .pth of any engine.
        base: The base model's folder, for its tokenizer and its provenance.
        output: The adapter's folder.
        experiment: What the model card describes; None for no card.

    Raises:
        UserError: The checkpoint is missing or damaged, was trained on another base, or is a full
            fine-tune.
    """
    state = load_checkpoint(checkpoint)
    record = record_of_checkpoint(checkpoint, state)
    require_same_base(base, record, checkpoint)
    if record.method.name == "full":
        raise UserError(
            f"{checkpoint} is a full fine-tune: it has no adapter, as all weights changed.\n"
            f"  Fix: build the merged model: snakemake {ExperimentPaths(record.name).merged()}"
        )
    provenance = read_json(BasePaths(base).provenance)
    config = lora_config(record.method)
    config.inference_mode = True
    # PEFT loads a base by repository and revision; any other base only exists on this machine
    on_hub = str(provenance["source"]).startswith("hf:")
    config.base_model_name_or_path = provenance["source"][3:] if on_hub else str(base.resolve())
    config.revision = provenance["revision"] if on_hub else None
    with atomic_folder(output) as folder:
        save_file(state["weights"], folder / "adapter_model.safetensors", {"format": "pt"})
        config.save_pretrained(str(folder))
        finish_folder(folder, "adapter", base, record, experiment)
    log.info("%s holds the adapter at iteration %d", output, record.iteration)
