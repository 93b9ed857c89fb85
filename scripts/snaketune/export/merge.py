"""Make one model of a base and what was trained on it, and check that it is the trained one.

Weights are read, summed in fp32, rounded once and written in blocks: memory holds a tensor or two
of any model. QLoRA trained on a rounded form of the base; it is merged into that form or into the
base's own weights, whichever loses less, and the figures of both are told.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from snaketune.core.errors import UserError
from snaketune.core.files import (
    atomic_folder,
    read_json,
    require_free_space,
    write_json,
)
from snaketune.core.manifest import require_intact
from snaketune.data.storage import Packs
from snaketune.experiment.resolved import Resolved
from snaketune.experiment.schema import Export
from snaketune.export.agreement import (
    converse,
    equal_tokens,
    heldout_loss,
    logits,
    relative_difference,
)
from snaketune.export.merged_weights import MergedWeights
from snaketune.export.model_assembly import assembled, base_weights, without_weights
from snaketune.export.model_folder import finish_folder, record_of_checkpoint, require_same_base
from snaketune.export.model_record import MergeCheck, ModelRecord
from snaketune.export.quantized import quantized_layers, rounding
from snaketune.export.weight_delta import Trained, read_adapter
from snaketune.models.checkpoint import load_checkpoint
from snaketune.models.load_model import device, explain_out_of_memory, load_tokenizer
from snaketune.models.weights import write_weights

log = logging.getLogger(__name__)

BOUNDS = {
    torch.float32: (1e-4, 0.99),
    torch.float16: (0.01, 0.95),
    torch.bfloat16: (0.1, 0.85),
}
"""For each dtype of the merged weights: the largest accepted difference of logits, as a share of
their standard deviation, and the smallest accepted share of equal greedy tokens, of which one may
always be another. Rounding a weight to bf16 keeps 8 bits of it: on the embedded model logits then
differ by 0.01 to 0.03 after LoRA and by 0.04 after a full fine-tune."""

QUANTIZED_BOUND = 0.05
"""How much higher the held-out loss of a merged QLoRA model may be than that of the model as it
was trained, in nats."""

HELDOUT_TOKENS = 16_384
"""So many held-out tokens decide between two bases."""

_DTYPES = {"auto": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@explain_out_of_memory("free memory held by other programs, then run again.")
def merge(
    base: Path,
    trained: Path,
    output: Path,
    experiment: Resolved | None = None,
    heldout: Path | None = None,
    export: Export | None = None,
) -> None:
    """Write base + adapter, or a full fine-tune, as one model.

    Args:
        base: The base model's folder.
        trained: A PEFT adapter made by `export`, or the checkpoint of a full fine-tune.
        output: Gets safetensors, tokenizer, chat template, generation config, model card,
            manifest.json, and snaketune.json with what it was trained on and the check's figures.
        experiment: Its prompts are asked of both models, and the model card tells of it.
        heldout: Held-out packs, by which one of two bases is chosen.
        export: Dtype, size of the shards, and the base of a QLoRA run; default: the experiment's.

    Raises:
        UserError: It was trained on another base, or the merged model does not answer as the
            trained one does; nothing is written.
    """
    export = export or (experiment.config.export if experiment else Export())
    checkpoint = None if trained.is_dir() else load_checkpoint(trained)
    record = record_of_checkpoint(trained, checkpoint) if checkpoint else _adapter_record(trained)
    require_same_base(base, record, trained)
    model = without_weights(base)
    changed = Trained.of_whole(checkpoint) if checkpoint else read_adapter(trained, model)
    weights = MergedWeights(*base_weights(base, model), changed, _DTYPES[export.dtype])
    _require_stored(weights, base)
    needed = sum(shape.nbytes for shape in weights.shapes().values())
    require_free_space(output.parent, needed + 2**24, "the merged model")
    check = Check(base, trained, record, experiment.prompts if experiment else (), heldout)
    figures: dict[str, Any] = {}
    if record.method.name == "qlora":
        weights, figures = _choose(weights, check, export.merge_into)
    log.info("merging %s into %s", trained, base.name)
    with atomic_folder(output) as folder:
        write_weights(folder, weights.shapes(), weights.blocks, export.max_shard_size)
        _write_config(folder, base, weights, record)
        figures |= check.verify(folder, weights)
        merge_check = MergeCheck.model_validate(figures)
        record = record.model_copy(update={"merge": merge_check})
        finish_folder(folder, "merged", base, record, experiment)


@dataclass(frozen=True)
class Check:
    """What a merged model is compared with: the base and the adapter, kept apart."""

    base: Path
    trained: Path
    record: ModelRecord
    prompts: Sequence[str]
    heldout: Path | None

    def as_trained(self, weights: MergedWeights) -> Any:
        """Return the trained model, in which nothing is summed or rounded beforehand."""
        if self.trained.is_dir():
            return assembled(self.base, device(), weights.before(), self.trained)
        return assembled(self.base, device(), weights.trained.values())

    def ask(self, model: Any) -> Any:
        """Return what a model answers to the prompts."""
        template = self.record.template
        tokenizer = load_tokenizer(self.base, template["text"])
        return converse(model, tokenizer, self.prompts, template)

    def loss(self, model: Any) -> float | None:
        """Return a model's held-out loss; None without held-out rows."""
        if not self.heldout:
            return None
        return heldout_loss(model, Packs(self.heldout), device(), HELDOUT_TOKENS)["loss"]

    def verify(self, folder: Path, weights: MergedWeights) -> dict[str, Any]:
        """Return how far a merged model is from the trained one.

        Raises:
            UserError: Further than rounding explains.
        """
        model = self.as_trained(weights)
        conversations = self.ask(model)
        expected = logits(model, conversations)
        del model
        found = logits(assembled(folder, device()), conversations)
        shapes = weights.shapes()
        # of the dtype with the fewest bits
        difference, equal = max(BOUNDS[shapes[name].dtype] for name in weights.trained.names)
        figures = {
            "dtype": str(_main_dtype(weights)).removeprefix("torch."),
            "difference": relative_difference(found, expected),
            "bound": difference,
            "equal_tokens": equal_tokens(found, conversations),
            "equal_tokens_bound": min(equal, 1 - 1 / int(conversations.answered.sum())),
        }
        _require_equal(figures)
        return figures


def _require_stored(weights: MergedWeights, base: Path) -> None:
    absent = sorted(weights.trained.names - {*weights.shapes()})
    if absent:
        raise UserError(
            f"{base} stores no tensor {absent[0]}, which was trained ({len(absent)} such): its "
            "file names its weights otherwise than transformers does.\n"
            "  Fix: load it with transformers, save_pretrained() it to a folder, and train on that."
        )


def _choose(
    original: MergedWeights, check: Check, wanted: str
) -> tuple[MergedWeights, dict[str, Any]]:
    """Return the better of two bases for a QLoRA adapter, and the figures of both."""
    method = check.record.method.quantization
    rounded = rounding(method, getattr(torch, check.record.precision))
    layers = quantized_layers(without_weights(check.base), method)
    dequantized = replace(original, rounded=dict.fromkeys(layers, rounded))
    model = check.as_trained(dequantized)
    conversations = check.ask(model)
    expected, loss = logits(model, conversations), check.loss(model)
    del model
    candidates = {"original": original, "dequantized": dequantized}
    figures: dict[str, Any] = {"as_trained": {"heldout_loss": loss, "difference": 0.0}}
    for name, weights in candidates.items():
        model = assembled(check.base, device(), weights.after())
        difference = relative_difference(logits(model, conversations), expected)
        figures[name] = {"heldout_loss": check.loss(model), "difference": difference}
        del model
    key = "difference" if loss is None else "heldout_loss"
    better = min(candidates, key=lambda name: figures[name][key])
    chosen = better if wanted == "auto" else wanted
    for name, row in figures.items():
        log.info("%s: %s", name, _told(row))
    log.info("merging into the %s weights of the base", chosen)
    _require_kept(figures, chosen, method)
    return candidates[chosen], {"merged_into": chosen, "quantization": method, "bases": figures}


def _told(row: dict[str, Any]) -> str:
    loss = row["heldout_loss"]
    held_out = "no rows held out" if loss is None else f"held-out loss {loss:.4f}"
    return f"{held_out}, logits differ from the trained model's by {row['difference']:.2g}"


def _require_kept(figures: dict[str, Any], chosen: str, method: str) -> None:
    """Refuse a base on which the fine-tune is lost."""
    row, trained = figures[chosen], figures["as_trained"]
    if trained["heldout_loss"] is None:
        bound = BOUNDS[torch.bfloat16][0]
        lost = not row["difference"] <= bound  # NaN is a loss too
        told = f"logits differ by {row['difference']:.2g} of their deviation from those of"
    else:
        bound = QUANTIZED_BOUND
        higher = row["heldout_loss"] - trained["heldout_loss"]
        lost = not higher <= bound
        told = f"held-out loss is {higher:.3g} nats higher than that of"
    if not lost:
        return
    other = "dequantized" if chosen == "original" else "original"
    raise UserError(
        f"merged into the {chosen} base, the fine-tune is lost: the {told} the model as it was "
        f"trained on the {method} base; at most {bound} is accepted.\n"
        f"  With the {other} base: {_told(figures[other])}.\n"
        "  Nothing was written. Fix: export: {merge_into: auto}, train with method: {name: lora}, "
        "or use the adapter without merging it."
    )


def _require_equal(figures: dict[str, Any]) -> None:
    difference, equal = figures["difference"], figures["equal_tokens"]
    log.info(
        "merged and trained model: logits differ by %.2g of their deviation, %.0f %% of the "
        "answers' tokens are equal",
        difference,
        100 * equal,
    )
    if difference <= figures["bound"] and equal >= figures["equal_tokens_bound"]:
        return
    raise UserError(
        f"the merged model's logits differ from the trained model's by {difference:.2g} of "
        f"their standard deviation, and {equal:.0%} of its greedy tokens are equal; for "
        f"{figures['dtype']} at most {figures['bound']} and at least "
        f"{figures['equal_tokens_bound']:.0%} are rounding.\n"
        "  Nothing was written. Fix: export: {dtype: fp32}, or lower the learning rate: weights "
        "this far from the base do not survive its precision."
    )


def _main_dtype(weights: MergedWeights) -> torch.dtype:
    """Return the dtype of the largest tensor, which most others share."""
    return max(weights.shapes().values(), key=lambda shape: shape.nbytes).dtype


def _adapter_record(trained: Path) -> ModelRecord:
    record = ModelRecord.of(trained)
    if record.merge:
        raise UserError(
            f"{trained} is a merged model already: there is nothing left to add to a base.\n"
            "  Fix: name the adapter's folder, or use the merged model as it is."
        )
    require_intact(trained)
    return record


def _write_config(folder: Path, base: Path, weights: MergedWeights, record: ModelRecord) -> None:
    """Write how the model is built and how it generates."""
    config = read_json(base / "config.json")
    config.pop("torch_dtype", None)  # of older transformers
    config["dtype"] = str(_main_dtype(weights)).removeprefix("torch.")
    if weights.unties:
        config["tie_word_embeddings"] = False
    write_json(folder / "config.json", config)
    old = GenerationConfig.from_pretrained(base)
    GenerationConfig(
        bos_token_id=old.bos_token_id,
        eos_token_id=record.template["end_token_ids"],
        pad_token_id=old.pad_token_id,
    ).save_pretrained(folder)
