"""The training stage: from resolved.yaml, base and data to a finished checkpoints folder."""

import logging
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from snaketune.cli import also_log_to
from snaketune.data.storage import Packs
from snaketune.errors import UserError
from snaketune.experiment.resolved import Resolved, package_versions, to_yaml
from snaketune.files import (
    locked,
    read_json,
    read_jsonl,
    require_free_space,
    sha256,
    write_text,
)
from snaketune.models.adapter import attach, trainable_parameters
from snaketune.models.generation import answer
from snaketune.models.load import (
    choose_precision,
    device,
    load_model,
    load_tokenizer,
    told_when_out_of_memory,
)
from snaketune.tracking.mirror import Mirror
from snaketune.training import processes
from snaketune.training.batches import Batches
from snaketune.training.engine import make_engine
from snaketune.training.loop import Trainer
from snaketune.training.run_folder import RunFolder

log = logging.getLogger(__name__)

LOCK_SECONDS = 60
"""How long to wait for a run that is still saving after a Ctrl-C."""

NEEDS_LESS_MEMORY = (
    "lower train.batch_size (and raise train.accumulate as much, for the same training) or "
    "max_length, or set method.name: qlora. Then run the same command again."
)


def needed_processes(experiment: Resolved) -> int:
    """Return how many processes to start: with DeepSpeed one for each GPU, else one."""
    deepspeed = experiment.config.train.deepspeed != "none"
    return max(1, torch.cuda.device_count()) if deepspeed else 1


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


def train(experiment: Resolved, base: Path, data: Path, output: Path) -> None:
    """Train an experiment to its end, or go on where it stopped.

    Args:
        base: The base model's folder, with provenance.json.
        data: The processed data's folder, with data.json.
        output: experiments/X/checkpoints.
    """
    if experiment.config.train.deepspeed != "none":
        processes.start()
    leads = processes.rank() == 0
    with locked(output, LOCK_SECONDS) if leads else nullcontext():
        folder = RunFolder(output, _identity(experiment, base, data), experiment.config.train.keep)
        state = folder.open() if leads else None
        if leads:
            also_log_to(output / "train.log")
            write_text(output / "resolved.yaml", to_yaml(experiment.values))
        processes.wait()
        if not leads:
            state = folder.newest_intact()
        with (
            Mirror(output, experiment) if leads else nullcontext() as mirror,
            told_when_out_of_memory(NEEDS_LESS_MEMORY),
        ):
            trainer, setup = _prepare(experiment, folder, base, data, state)
            if mirror:
                trainer.heartbeat = mirror.push
            trainer.run(state)
            if leads:
                folder.finish(trainer.batches.total, _figures(folder, trainer, setup))


def _identity(experiment: Resolved, base: Path, data: Path) -> dict[str, str]:
    """Return what must be equal for a checkpoint to be resumed."""
    return {
        "train_id": experiment.train_id,
        "base_sha256": sha256(base / "provenance.json"),
        "data_sha256": sha256(data / "data.json"),
    }


def _prepare(
    experiment: Resolved, folder: RunFolder, base: Path, data: Path, state: dict[str, Any] | None
) -> tuple[Trainer, dict[str, Any]]:
    """Load everything; return the trainer, and what was chosen for this machine."""
    config, template = experiment.config, read_json(data / "data.json")["template"]
    dtype, reason = choose_precision(config.train.precision)
    if state:
        dtype, reason = getattr(torch, state["about"]["precision"]), "as the run began"
    where = device(int(os.environ.get("LOCAL_RANK", "0")))
    log.info("loading %s in %s (%s) on %s", base.name, dtype, reason, where)
    model = attach(
        load_model(base, dtype, where, quantize=config.method.name == "qlora"),
        config.method,
        config.train.seed,
    )
    # the next checkpoint is written before the oldest is deleted
    more = max(1, config.train.keep + 1 - len(folder.checkpoints()))
    purpose = f"training with {more} more checkpoints (train.keep)"
    require_free_space(folder.path, more * _checkpoint_bytes(model), purpose)
    torch.manual_seed(config.train.seed + processes.rank())
    batches = _batches(experiment, data)
    _announce(experiment, batches, model)
    about = folder.identity | {
        "name": experiment.name,
        "base_id": base.name,
        "precision": str(dtype).removeprefix("torch."),
        "method": config.method.model_dump(),
        "template": template,
    }
    trainer = Trainer(
        model=model,
        engine=make_engine(model, config.train),
        batches=batches,
        train=config.train,
        sample=config.sample,
        folder=folder,
        where=where,
        answers=_answers(model, base, template, experiment),
        about=about,
    )
    return trainer, {"precision": about["precision"], "precision_reason": reason}


def _batches(experiment: Resolved, data: Path) -> Batches:
    config = experiment.config.train
    packs = Packs(data / "train.arrow")
    ranks = processes.rank(), processes.count()
    return Batches(packs, config.batch_size, config.epochs, config.seed, *ranks)


def _answers(model: PeftModel, base: Path, template: dict[str, Any], experiment: Resolved) -> Any:
    sample = experiment.config.sample
    tokenizer = load_tokenizer(base, template["text"])
    return partial(answer, model, tokenizer, sample.prompts, sample.max_new_tokens, template)


def _checkpoint_bytes(model: PeftModel) -> int:
    """Return about how large a checkpoint is: fp32 weights and two AdamW moments, and a margin."""
    return 3 * 4 * sum(p.numel() for p in trainable_parameters(model)) + 2**20


def _announce(experiment: Resolved, batches: Batches, model: PeftModel) -> None:
    train = experiment.config.train
    updates = -(-batches.total // train.accumulate)
    trainable, total = model.get_nb_trainable_parameters()
    log.info(
        "%s: %d packs, %d iterations, %d updates, %s, DeepSpeed %s, %s of %s parameters trained",
        experiment.name,
        len(batches.packs),
        batches.total,
        updates,
        "1 process" if processes.count() == 1 else f"{processes.count()} processes",
        train.deepspeed,
        f"{trainable:,}",
        f"{total:,}",
    )


def _figures(folder: RunFolder, trainer: Trainer, setup: dict[str, Any]) -> dict[str, Any]:
    """Return train.json: the run's figures, all taken from metrics.jsonl.

    `training_seconds` is the time of all iterations, without samples, checkpoints and loading.
    """
    rows = read_jsonl(folder.metrics)
    updates = [row for row in rows if row["update"]]
    return {
        **folder.identity,
        "iterations": len(rows),
        "updates": len(updates),
        "tokens": sum(row["tokens"] for row in rows),
        "supervised_tokens": sum(row["supervised_tokens"] for row in rows),
        "training_seconds": sum(row["time_seconds"] for row in rows),
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in rows),
        "first_loss": updates[0]["update_loss"],
        "last_loss": updates[-1]["update_loss"],
        "processes": processes.count(),
        "deepspeed": trainer.train.deepspeed,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **setup,
        "versions": package_versions(),
    }
