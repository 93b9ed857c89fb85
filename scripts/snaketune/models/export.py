"""Turn a checkpoint into an adapter in PEFT's format, without loading the base model."""

import logging
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from snaketune.errors import UserError
from snaketune.experiment.schema import Method
from snaketune.files import atomic_folder, read_json, write_json
from snaketune.manifest import write_manifest
from snaketune.models.adapter import lora_config
from snaketune.models.checkpoint import load_checkpoint
from snaketune.models.merge import copy_tokenizer, require_same_base

log = logging.getLogger(__name__)


def export_adapter(checkpoint: Path, base: Path, output: Path) -> None:
    """Write adapter_model.safetensors, adapter_config.json, tokenizer and chat template.

    Args:
        checkpoint: A .pth of any engine.
        base: The base model's folder, for its tokenizer and its origin.
        output: The adapter's folder; snaketune.json in it says what it was trained on.

    Raises:
        UserError: The checkpoint is missing or damaged, or was trained on another base.
    """
    state = load_checkpoint(checkpoint)
    about: dict[str, Any] = state["about"] | {"iteration": state["iteration"]}
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
        copy_tokenizer(base, folder)
        (folder / "chat_template.jinja").write_text(about["template"]["text"], encoding="utf-8")
        write_json(folder / "snaketune.json", about)
        write_manifest(folder)
    log.info("%s holds the adapter at iteration %d", output, about["iteration"])
