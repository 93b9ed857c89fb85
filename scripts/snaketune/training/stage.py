"""The training stage: from resolved.yaml, base and data to a finished checkpoints folder."""

import logging
import os
import random
import statistics
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snaketune.core.cli import also_log_to
from snaketune.core.errors import UserError
from snaketune.core.files import (
    locked,
    read_json,
    require_free_space,
    write_text,
)
from snaketune.core.run_identity import RunIdentity
from snaketune.data.storage import Packs
from snaketune.experiment.resolved import Resolved, package_versions, to_yaml
from snaketune.experiment.schema import Configuration, Train
from snaketune.models.adapter import (
    count_trained,
    load_trained_weights,
    make_trainable,
    needs_autocast,
)
from snaketune.models.checkpoint import load_checkpoint
from snaketune.models.generation import answer
from snaketune.models.load import (
    available_memory,
    choose_precision,
    device,
    load_model,
    load_tokenizer,
    told_when_out_of_memory,
)
from snaketune.models.memory import MOMENTS, Estimate
from snaketune.models.packed import causal_model
from snaketune.tracking.mirror import Mirror
from snaketune.training import processes
from snaketune.training.batches import Batches
from snaketune.training.engine import deepspeed_config, make_engine
from snaketune.training.estimate import estimate
from snaketune.training.flops import Flops, matrix_rate
from snaketune.training.loop import Trainer
from snaketune.training.run_folder import RunFolder
from snaketune.training.train_record import MetricsRow, PeakMemory, TrainRecord
from snaketune.training.validation import Validation

log = logging.getLogger(__name__)

LOCK_SECONDS = 60
"""How long to wait for a run that is still saving after a Ctrl-C."""

NEEDS_LESS_MEMORY = (
    "lower train.batch_size (and raise train.accumulate as much, for the same training) or "
    "max_length, or set train.gradient_checkpointing: true or method.name: qlora. Then run the "
    "same command again."
)


def require_train_id(experiment: Resolved, planned: str | None) -> None:
    """Refuse an experiment that was edited after Snakemake planned this job.

    Raises:
        UserError: Its train_id is not the planned one.
    """
    if planned not in (None, experiment.train_id):
        raise UserError(
            f"experiment {experiment.name} was edited since this job was planned (train_id "
            f"{planned} then, {experiment.train_id} now).\n  Fix: run the same command again."
        )


def train(
    experiment: Resolved, base: Path, data: Path, output: Path, start: Path | None = None
) -> None:
    """Train an experiment to its end, or go on where it stopped.

    Args:
        base: The base model's folder, with provenance.json.
        data: The processed data's folder, with data.json.
        output: experiments/X/checkpoints.
        start: The checkpoint of another experiment, whose weights are the first.
    """
    identity = _identity(experiment, base, data, start)
    seed_everything(experiment.config.train)
    processes.start(deepspeed=experiment.config.train.deepspeed != "none")
    leads = processes.rank() == 0
    with locked(output, LOCK_SECONDS) if leads else nullcontext():
        folder = RunFolder(output, identity, experiment.config.train.keep)
        state = folder.open() if leads else None
        if leads:
            also_log_to(folder.paths.log)
            write_text(folder.paths.resolved, to_yaml(experiment.values))
        processes.wait()
        if not leads:
            state = folder.newest_intact()
        with (
            Mirror(output, experiment, data) if leads else nullcontext() as mirror,
            told_when_out_of_memory(NEEDS_LESS_MEMORY),
        ):
            trainer, setup = _prepare(experiment, folder, base, data, state, start)
            if mirror:
                trainer.heartbeat = mirror.push
            result = trainer.run(state)
            if leads:
                record = _record(folder, trainer, setup, result)
                _log_memory_error(record)
                folder.finish(result, record)


def _identity(experiment: Resolved, base: Path, data: Path, start: Path | None) -> RunIdentity:
    """Return what must be equal for a checkpoint to be resumed.

    Raises:
        UserError: The experiment starts from another one, and its checkpoint is not given; or it
            is converted, not trained.
    """
    if experiment.config.convert_from:
        raise UserError(
            f"{experiment.name} is converted from {experiment.config.convert_from}, not trained.\n"
            f"  Fix: snakemake experiments/{experiment.name}/checkpoints/last.pth, and to train it "
            f"further another experiment with method: {{start_from: {experiment.name}}}"
        )
    wanted = experiment.config.method.start_from
    if wanted and not start:
        raise UserError(
            f"{experiment.name} starts from {wanted}, whose checkpoint is not given.\n"
            f"  Fix: add --start experiments/{wanted}/checkpoints/last.pth"
        )
    return RunIdentity.of_training(experiment.train_id, base, data, start)


def _prepare(
    experiment: Resolved,
    folder: RunFolder,
    base: Path,
    data: Path,
    state: dict[str, Any] | None,
    start: Path | None,
) -> tuple[Trainer, dict[str, Any]]:
    """Load everything; return the trainer, and what was chosen for this machine."""
    config, train = experiment.config, experiment.config.train
    template = read_json(data / "data.json")["template"]
    dtype, reason = choose_precision(train.precision)
    if state:
        dtype, reason = getattr(torch, state["about"]["precision"]), "as the run began"
    where = device(int(os.environ.get("LOCAL_RANK", "0")))
    log.info("loading %s in %s (%s) on %s", base.name, dtype, reason, where)
    deepspeed = deepspeed_config(train, experiment.deepspeed_json)
    model = _load(config, base, dtype, where, deepspeed)
    if start and not state:
        log.info("beginning with the weights of %s", start)
        load_trained_weights(model, load_checkpoint(start)["weights"])
    torch.manual_seed(train.seed + processes.rank())
    batches = Batches(Packs(data / "train.arrow"), train, processes.rank(), processes.count())
    plan = _plan(experiment, folder, model, batches, where)
    trainer = Trainer(
        model=model,
        engine=make_engine(model, train, deepspeed),
        batches=batches,
        train=train,
        sample=config.sample,
        folder=folder,
        where=where,
        answers=_answers(model, base, template, experiment),
        about=folder.about(
            experiment.name,
            base,
            str(dtype).removeprefix("torch."),
            experiment.config.method,
            template,
        ),
        validation=Validation(train, Packs(data / "heldout.arrow"), folder),
        flops=Flops(causal_model(model), matrix_rate(where, dtype)),
        autocast=dtype if needs_autocast(config.method) and dtype != torch.float32 else None,
    )
    return trainer, plan | {
        "precision": trainer.about.precision,
        "precision_reason": reason,
        "attention": causal_model(model).config._attn_implementation,
        "matrix_flops_per_second": trainer.flops.rate,
    }


def _load(
    config: Configuration,
    base: Path,
    dtype: torch.dtype,
    where: torch.device,
    deepspeed: dict[str, Any] | None,
) -> Any:
    """Return the model to train, with what is trained freshly initialised."""
    method = config.method
    quantization = method.quantization if method.name == "qlora" else None
    attention = config.train.attention
    if config.train.compile and attention == "auto":
        attention = "sdpa"  # samples of ever other lengths would be compiled ever again
    network = load_model(base, dtype, where, quantization, attention)
    log.info("attention: %s", network.config._attn_implementation)
    splits = deepspeed is not None and deepspeed["zero_optimization"]["stage"] == 3
    model = make_trainable(network, method, config.train.seed, whole=not splits)
    if config.train.compile:
        causal_model(model).base_model.compile()
    return model


def _plan(
    experiment: Resolved, folder: RunFolder, model: Any, batches: Batches, where: torch.device
) -> dict[str, Any]:
    """Say what the run will need, refuse it if the disk is too small, and save memory if it must.

    Raises:
        UserError: The checkpoints do not fit on the disk.
    """
    train = experiment.config.train
    # the next checkpoint is written before the oldest is deleted
    more = max(1, train.keep + 1 + train.keep_best - len(folder.checkpoints()))
    disk = more * _checkpoint_bytes(model, train)
    require_free_space(
        folder.paths.folder, disk, f"training with {more} more checkpoints (train.keep)"
    )
    needs = estimate(model, train, batches.most_tokens())
    checkpointed = _checkpointing(train, needs, where)
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    _announce(experiment, batches, model, needs.total(checkpointed), disk)
    return {
        "gradient_checkpointing": checkpointed,
        "estimated_peak_bytes": needs.total(checkpointed),
    }


def seed_everything(train: Train) -> None:
    """Seed every generator, and allow only repeatable algorithms if that is asked for."""
    random.seed(train.seed)
    np.random.seed(train.seed % 2**32)
    torch.manual_seed(train.seed)
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def _checkpointing(train: Train, needs: Estimate, where: torch.device) -> bool:
    """Tell whether activations are computed twice: if asked, or if memory would not do without."""
    if train.gradient_checkpointing != "auto":
        return train.gradient_checkpointing
    room = available_memory(where, processes.count())
    [lacking] = processes.total(int(needs.total(checkpointed=False) > room), where=where)
    if not lacking:  # in no process: all must do the same
        return False
    log.info(
        "gradient checkpointing is on: without it about %.1f GiB would be needed, %.1f are there",
        needs.total(checkpointed=False) / 2**30,
        room / 2**30,
    )
    return True


def _answers(model: Any, base: Path, template: dict[str, Any], experiment: Resolved) -> Any:
    sample = experiment.config.sample
    tokenizer = load_tokenizer(base, template["text"])
    return partial(answer, model, tokenizer, sample.prompts, sample.max_new_tokens, template)


def _checkpoint_bytes(model: torch.nn.Module, train: Train) -> int:
    """Return about how large a checkpoint is: fp32 weights, AdamW's moments, and a margin.

    DeepSpeed keeps the weights once more, in the optimizer's state.
    """
    weights = 4 if train.deepspeed == "none" else 8
    return count_trained(model) * (weights + MOMENTS[train.optimizer]) + 2**20


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
        _several(batches.size * train.accumulate, "pack"),
        _several(-(-batches.total // train.save_every), "checkpoint"),
        _several(processes.count(), "process", "es"),
        train.deepspeed,
    )
    log.info(
        "%s weights are trained; about %.1f GiB of memory and %.0f MiB of disk will be needed",
        f"{count_trained(model):,}",
        peak / 2**30,
        disk / 2**20,
    )


def _several(count: int, thing: str, ending: str = "s") -> str:
    return f"{count} {thing}{ending if count != 1 else ''}"


def _log_memory_error(record: TrainRecord) -> None:
    """Log the measured peak and how far the estimate was off."""
    peak, expected = record.peak_memory_bytes, record.estimated_peak_bytes or 0
    log.info(
        "peak memory %.2f GiB, estimated %.2f GiB (%+.0f %%)",
        peak / 2**30,
        expected / 2**30,
        100 * (expected / peak - 1),
    )


def _record(folder: RunFolder, trainer: Trainer, setup: dict[str, Any], result: int) -> TrainRecord:
    """Summarise metrics.jsonl, which covers all interruptions, and what was chosen here."""
    rows = MetricsRow.read(folder.paths.metrics)
    updates = [row for row in rows if row.update]
    return TrainRecord(
        **folder.identity.model_dump(),
        iterations=len(rows),
        result_iteration=result,
        updates=len(updates),
        tokens=sum(row.tokens for row in rows),
        supervised_tokens=sum(row.supervised_tokens for row in rows),
        training_seconds=sum(row.time_seconds for row in rows),
        **PeakMemory.highest(rows).model_dump(),
        model_flops_utilisation=_median(row.model_flops_utilisation for row in rows),
        supervised_tokens_per_second=_median(row.supervised_tokens_per_second for row in rows),
        first_loss=updates[0].update_loss,
        last_loss=updates[-1].update_loss,
        heldout_losses=trainer.validation.measured,
        seeds=dict.fromkeys(("python", "numpy", "torch", "data_order"), trainer.train.seed),
        processes=processes.count(),
        deepspeed=trainer.train.deepspeed,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **setup,
        versions=package_versions(),
    )


def _median(values: Iterable[float | None]) -> float:
    return statistics.median(value for value in values if value is not None)
