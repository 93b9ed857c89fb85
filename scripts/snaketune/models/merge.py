"""Make one model of a base and what was trained on it, and check that it is the trained one.

The base is the one in its own precision, also for QLoRA, which trained on its 4-bit form.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel

from snaketune.errors import UserError
from snaketune.files import atomic_folder, read_json, require_free_space, sha256, write_json
from snaketune.models.adapter import load_trained_weights
from snaketune.models.checkpoint import load_checkpoint
from snaketune.models.load import load_model, load_tokenizer

log = logging.getLogger(__name__)

BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Largest accepted difference of logits, as a share of their standard deviation, for each dtype
the merged weights are stored in. Rounding a weight to bf16 keeps 8 bits of it."""

CPU = torch.device("cpu")

PROBES = (
    "The capital of Italy is Rome, and the capital of Japan is",
    "Please introduce yourself.",
    "1 + 1 = 2, 2 + 2 = 4, 4 + 4 =",
    "你好，请介绍一下你自己。",
)


def merge(base: Path, trained: Path, output: Path) -> None:
    """Write base + adapter, or a full fine-tune, as one model in the base's own precision.

    The sums are done in fp32 and rounded once.

    Args:
        base: The base model's folder.
        trained: A PEFT adapter made by `export`, or the checkpoint of a full fine-tune.
        output: Gets safetensors, tokenizer, chat template, generation config, and
            snaketune.json with what it was trained on and the figures of the check.

    Raises:
        UserError: It was trained on another base, or the merged model does not answer as the
            trained one does.
    """
    about = _about(trained)
    require_same_base(base, about, trained)
    weights = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    require_free_space(output.parent, weights + 2**24, "the merged model")
    dtype = stored_dtype(base)
    log.info("merging %s into %s, in %s", trained, base.name, dtype)
    # on the CPU, as fp32 weights of a model trained in 4 bits rarely fit its GPU
    network = load_model(base, torch.float32, CPU)
    if trained.is_file():
        load_trained_weights(network, load_checkpoint(trained)["weights"])
        expected, merged = logits(network, base), network
    else:
        model = PeftModel.from_pretrained(network, trained)
        expected, merged = logits(model, base), _merged(model, trained)
    cast_parameters(merged, dtype)
    cast_parameters(merged, torch.float32)
    difference = relative_difference(logits(merged, base), expected)
    bound = BOUNDS[dtype]
    if not difference <= bound:
        raise UserError(
            f"the merged model's logits differ from the trained model's by {difference:.2g} of "
            f"their standard deviation; for {dtype} at most {bound} is rounding.\n"
            "  Nothing was written. Fix: merge in fp32, or lower the learning rate: weights this "
            "far from the base do not survive its precision."
        )
    log.info("merged and trained model differ by %.2g of the logits' deviation", difference)
    figures = {"dtype": str(dtype).removeprefix("torch."), "difference": difference, "bound": bound}
    cast_parameters(merged, dtype)
    _write(merged, base, output, about | {"merge": figures})


def _about(trained: Path) -> dict[str, Any]:
    """Return what an adapter or a checkpoint tells of its training."""
    if trained.is_dir():
        return read_json(trained / "snaketune.json")
    state = load_checkpoint(trained)
    return state["about"] | {"iteration": state["iteration"]}


def _merged(model: PeftModel, adapter: Path) -> Any:
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # PEFT found NaN
        raise UserError(
            f"{adapter} cannot be merged: {error}\n"
            "  The training diverged. Fix: lower train.lr, or merge an earlier iteration."
        ) from error


def require_same_base(base: Path, about: dict[str, Any], adapter: Path) -> None:
    """Refuse a base that the adapter was not trained on.

    Raises:
        UserError: The base's provenance is not the one the adapter names.
    """
    if sha256(base / "provenance.json") != about["base_sha256"]:
        raise UserError(
            f"{adapter} was trained on base model {about['base_id']}, not on {base}.\n"
            f"  Fix: use --base store/models/{about['base_id']}"
        )


def stored_dtype(base: Path) -> torch.dtype:
    """Return the precision most of a base model's weights are stored in."""
    return getattr(torch, read_json(base / "provenance.json")["dtype"])


def logits(model: torch.nn.Module, base: Path) -> torch.Tensor:
    """Return a model's logits for PROBES, (tokens, vocabulary), fp32."""
    tokenizer = load_tokenizer(base)
    found = []
    with torch.inference_mode():
        for probe in PROBES:
            inputs = tokenizer(probe, return_tensors="pt")
            found.append(model.eval()(**inputs, use_cache=False).logits[0].float())
    return torch.cat(found)


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the root mean square difference of logits as a share of their deviation."""
    return ((found - expected).pow(2).mean().sqrt() / expected.std()).item()


def cast_parameters(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights alone: buffers, such as rotary frequencies, stay in fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _write(model: PreTrainedModel, base: Path, output: Path, about: dict[str, Any]) -> None:
    with atomic_folder(output) as folder:
        model.generation_config = GenerationConfig(
            bos_token_id=model.generation_config.bos_token_id,
            eos_token_id=about["template"]["end_token_ids"],
            pad_token_id=model.generation_config.pad_token_id,
        )
        model.config.dtype = next(model.parameters()).dtype
        model.save_pretrained(folder)
        copy_tokenizer(base, folder)
        (folder / "chat_template.jinja").write_text(about["template"]["text"], encoding="utf-8")
        write_json(folder / "snaketune.json", about)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer and its chat template."""
    for pattern in ("tokenizer*", "special_tokens_map.json", "chat_template.jinja", "*.model"):
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)
