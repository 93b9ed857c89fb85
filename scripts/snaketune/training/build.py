"""Build a trainer from an experiment: everything a run loads and chooses, step by step."""

import logging
import os
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from snaketune.core.files import read_json, require_free_space
from snaketune.core.layout import DataPaths
from snaketune.data.storage import Packs
from snaketune.experiment.resolved import Resolved
from snaketune.experiment.schema import Configuration, Method, Train
from snaketune.models.checkpoint import CheckpointState, load_checkpoint
from snaketune.models.generation import answer
from snaketune.models.load_model import (
    available_memory,
    choose_precision,
    device,
    load_model,
    load_tokenizer,
)
from snaketune.models.memory import MemoryEstimate
from snaketune.models.optimizers import OPTIMIZERS
from snaketune.models.packed import causal_model
from snaketune.models.trainable import (
    count_trained,
    load_trained_weights,
    make_trainable,
    needs_autocast,
)
from snaketune.training import processes
from snaketune.training.batches import Batches
from snaketune.training.callbacks import Callback
from snaketune.training.engine import EngineEntry, engine_entry
from snaketune.training.estimate_memory import estimate
from snaketune.training.flops import Flops, matrix_rate
from snaketune.training.metrics_callback import MetricsCallback
from snaketune.training.progress_callback import ProgressCallback
from snaketune.training.run_folder import RunFolder
from snaketune.training.sample_callback import SampleCallback
from snaketune.training.trainer import Arithmetic, Trainer
from snaketune.training.validation import Validation, heldout_batches, mean_loss

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choices:
    """What was chosen for this machine and goes into train.json."""

    precision: str
    precision_reason: str
    attention: str
    gradient_checkpointing: bool
    estimated_peak_bytes: int
    matrix_flops_per_second: float


def build_trainer(
    experiment: Resolved,
    folder: RunFolder,
    base: Path,
    data: DataPaths,
    state: CheckpointState | None,
    start: Path | None,
) -> tuple[Trainer, Choices]:
    """Load everything that a run needs.

    Args:
        base: The base model's folder.
        state: The checkpoint to resume from, which will be loaded by `Trainer.run`.
        start: The checkpoint of another run whose weights are the first.

    Raises:
        UserError: The disk is too small, or the experiment does not fit model or data.
    """
    config, train = experiment.config, experiment.config.train
    batches = Batches(Packs(data.train), train, processes.rank(), processes.count())
    template = read_json(data.record)["template"]

    dtype, reason = _precision(train, state)
    where = device(int(os.environ.get("LOCAL_RANK", "0")))
    log.info("loading %s in %s (%s) on %s", base.name, dtype, reason, where)
    arithmetic = _arithmetic(config.method, dtype, where)

    entry = engine_entry(train)
    unsharded = not entry.splits_weights(experiment.deepspeed_json)
    model = _load_trainable(config, base, dtype, where, unsharded, None if state else start)
    # from here on, random numbers are dropout's; each process draws its own
    torch.manual_seed(train.seed + processes.rank())

    disk = _require_disk_space(folder, train, entry, model)
    # before the engine is made: it already holds a part of what is estimated
    checkpointed, peak = _fit_memory(model, train, batches, where)
    _announce(experiment, batches, model, peak, disk)

    engine = entry.create(model, train, experiment.deepspeed_json)
    precision = str(dtype).removeprefix("torch.")
    trainer = Trainer(
        model=model,
        engine=engine,
        batches=batches,
        train=train,
        folder=folder,
        device=where,
        about=folder.about(experiment.name, base, precision, config.method, template),
        flops=Flops(causal_model(model), matrix_rate(where, dtype)),
        arithmetic=arithmetic,
    )
    trainer.callbacks = own_callbacks(trainer, config, base, template, Packs(data.heldout))
    return trainer, Choices(
        precision=precision,
        precision_reason=reason,
        attention=causal_model(model).config._attn_implementation,
        gradient_checkpointing=checkpointed,
        estimated_peak_bytes=peak,
        matrix_flops_per_second=trainer.flops.rate,
    )


def own_callbacks(
    trainer: Trainer,
    config: Configuration,
    base: Path,
    template: dict[str, Any],
    heldout: Packs,
) -> list[Callback]:
    """SnakeTune's own callbacks; the order matters.

    The files come first, so that a kill at any later point finds the iteration's row written.
    Validation comes before the samples: it may make an iteration the last, which is sampled.
    """
    train, paths = trainer.train, trainer.folder.paths
    batches = heldout_batches(train, heldout)
    measure = partial(mean_loss, trainer.model, batches, trainer.device, trainer.arithmetic)
    sample, tokenizer = config.sample, load_tokenizer(base, template["text"])

    def answers() -> list[str]:
        with trainer.arithmetic():
            return answer(trainer.model, tokenizer, sample.prompts, sample.max_new_tokens, template)

    leads = [MetricsCallback(paths.metrics), ProgressCallback(train.log_every)]
    return [
        *(leads if processes.rank() == 0 else []),
        Validation(train, heldout, paths, measure),
        SampleCallback(sample, paths.samples, answers, trainer.engine.splits_weights),
    ]


def _precision(train: Train, state: CheckpointState | None) -> tuple[torch.dtype, str]:
    """The dtype and why: a run keeps its own wherever it is resumed, as others change numbers."""
    if state:
        return getattr(torch, state["about"]["precision"]), "as the run began"
    return choose_precision(train.precision)


def _arithmetic(method: Method, dtype: torch.dtype, where: torch.device) -> Arithmetic:
    if needs_autocast(method) and dtype != torch.float32:
        return partial(torch.autocast, where.type, dtype)
    return nullcontext


def _load_trainable(
    config: Configuration,
    base: Path,
    dtype: torch.dtype,
    where: torch.device,
    unsharded: bool,
    start: Path | None,
) -> Any:
    """Load the base model and add the weights to train: fresh ones, or those of `start`."""
    method, attention = config.method, config.train.attention
    if config.train.compile and attention == "auto":
        # our own attention loops over the samples; each new length would be compiled again
        attention = "sdpa"
    quantization = method.quantization if method.name == "qlora" else None
    network = load_model(base, dtype, where, quantization, attention)
    log.info("attention: %s", network.config._attn_implementation)
    model = make_trainable(network, method, config.train.seed, unsharded=unsharded)
    if start:
        log.info("starting with the weights of %s", start)
        load_trained_weights(model, load_checkpoint(start)["weights"])
    if config.train.compile:
        causal_model(model).base_model.compile()  # without the head: the loss multiplies itself
    return model


def _require_disk_space(
    folder: RunFolder, train: Train, entry: EngineEntry, model: torch.nn.Module
) -> int:
    """Refuse a run whose checkpoints do not fit on the disk; return the bytes they will take."""
    # the next checkpoint is written before the oldest is deleted
    more = max(1, train.keep + 1 + train.keep_best - len(folder.checkpoints()))
    disk = more * _checkpoint_bytes(model, train, entry)
    purpose = f"training with {more} more checkpoints (train.keep)"
    require_free_space(folder.paths.folder, disk, purpose)
    return disk


def _checkpoint_bytes(model: torch.nn.Module, train: Train, entry: EngineEntry) -> int:
    """About how large a checkpoint is: fp32 weights, the optimizer's state, and a margin."""
    for_each = 4 * entry.weight_copies + OPTIMIZERS[train.optimizer].state_bytes
    return count_trained(model) * for_each + 2**20


def _fit_memory(
    model: Any, train: Train, batches: Batches, where: torch.device
) -> tuple[bool, int]:
    """Turn gradient checkpointing on if it must be; return whether, and the expected peak."""
    needs = estimate(model, train, batches.most_tokens())
    checkpointed = _needs_checkpointing(train, needs, where)
    if checkpointed:
        # reentrant checkpointing needs an input that requires a gradient, and LoRA's has none
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return checkpointed, needs.total(checkpointed)


def _needs_checkpointing(train: Train, needs: MemoryEstimate, where: torch.device) -> bool:
    if train.gradient_checkpointing != "auto":
        return train.gradient_checkpointing
    available = available_memory(where, processes.count())
    peak = needs.total(checkpointed=False)
    # all processes must do the same, so one that lacks memory decides for all
    [lacking] = processes.total(int(peak > available), device=where)
    if not lacking:
        return False
    log.info(
        "gradient checkpointing is on: without it about %.1f GiB are needed, %.1f are available",
        peak / 2**30,
        available / 2**30,
    )
    return True


def _announce(
    experiment: Resolved, batches: Batches, model: torch.nn.Module, peak: int, disk: int
) -> None:
    train = experiment.config.train
    log.info(
        "%s: %d packs, %d iterations, %d updates of %s, %s, %s, DeepSpeed %s",
        experiment.name,
        len(batches.packs),
        batches.total,
        -(-batches.total // train.accumulate),
        _plural(batches.size * train.accumulate, "pack"),
        _plural(-(-batches.total // train.save_every), "checkpoint"),
        _plural(processes.count(), "process", "es"),
        train.deepspeed,
    )
    log.info(
        "%s weights are trained; about %.1f GiB of memory and %.0f MiB of disk will be needed",
        f"{count_trained(model):,}",
        peak / 2**30,
        disk / 2**20,
    )


def _plural(count: int, noun: str, ending: str = "s") -> str:
    return f"{count} {noun}{ending if count != 1 else ''}"
