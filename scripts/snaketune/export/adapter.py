"""Turn a checkpoint into an adapter in PEFT's format, without loading the base model."""

import logging
from pathlib import Path

from safetensors.torch import save_file

from snaketune.core.errors import UserError
from snaketune.core.files import atomic_folder, read_json
from snaketune.experiment.resolved import Resolved
from snaketune.experiment.schema import Method
from snaketune.export.artifact import describe, finish, require_same_base
from snaketune.models.adapter import lora_config
from snaketune.models.checkpoint import load_checkpoint

log = logging.getLogger(__name__)


def export_adapter(
    checkpoint: Path, base: Path, output: Path, experiment: Resolved | None = None
) -> None:
    """Write adapter_model.safetensors, adapter_config.json, tokenizer, template and model card.

    Args:
        checkpoint: A .pth of any engine.
        base: The base model's folder, for its tokenizer and its origin.
        output: The adapter's folder; snaketune.json in it says what it was trained on.
        experiment: What the model card tells of; None for no card.

    Raises:
        UserError: The checkpoint is missing or damaged, or was trained on another base.
    """
    state = load_checkpoint(checkpoint)
    about = describe(checkpoint, state)
    require_same_base(base, about, checkpoint)
    if about["method"]["name"] == "full":
        raise UserError(
            f"{checkpoint} is a full fine-tune: it has no adapter, all weights changed.\n"
            f"  Fix: build the model itself: snakemake experiments/{about['name']}/merged"
        )
    provenance = read_json(base / "provenance.json")
    config = lora_config(Method.model_validate(about["method"]))
    config.inference_mode = True
    hub = str(provenance["source"]).startswith("hf:")
    config.base_model_name_or_path = provenance["source"][3:] if hub else str(base.resolve())
    config.revision = provenance["revision"] if hub else None
    with atomic_folder(output) as folder:
        save_file(state["weights"], folder / "adapter_model.safetensors", {"format": "pt"})
        config.save_pretrained(str(folder))
        finish(folder, "adapter", base, about, experiment)
    log.info("%s holds the adapter at iteration %d", output, about["iteration"])
