"""The training stage: from resolved.yaml, base and data to a finished checkpoints folder."""

import logging
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch

from snaketune.core.cli import also_log_to
from snaketune.core.errors import UserError
from snaketune.core.files import locked, write_text
from snaketune.core.layout import DataPaths, ExperimentPaths
from snaketune.core.run_identity import RunIdentity
from snaketune.experiment.resolved import Resolved, package_versions, to_yaml
from snaketune.models.load_model import explain_out_of_memory
from snaketune.training import processes
from snaketune.training.build import Choices, build_trainer
from snaketune.training.callbacks import Callback
from snaketune.training.engine import engine_entry
from snaketune.training.random_state import seed_everything
from snaketune.training.result import best_iteration, heldout_losses
from snaketune.training.run_folder import RunFolder
from snaketune.training.train_record import MetricsRow, PeakMemory, TrainRecord
from snaketune.training.trainer import Trainer

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
    experiment: Resolved,
    base: Path,
    data: Path,
    output: Path,
    start: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train an experiment to its end, or resume it where it stopped.

    Args:
        base: The base model's folder, with provenance.json.
        data: The processed data's folder, with data.json.
        output: experiments/X/checkpoints.
        start: The checkpoint of another experiment, whose weights are the first.
        callbacks: Called after SnakeTune's own, in the first process alone.
    """
    identity = _identity(experiment, base, data, start)
    settings = experiment.config.train
    seed_everything(settings)
    processes.start(deepspeed=engine_entry(settings).needs_deepspeed)
    leads = processes.rank() == 0
    # the lock first: another process may still be saving in this folder
    with locked(output, LOCK_SECONDS) if leads else nullcontext():
        folder = RunFolder(output, identity, settings.keep, settings.keep_best)
        if leads:
            folder.claim()
            also_log_to(folder.paths.log)
            write_text(folder.paths.resolved, to_yaml(experiment.values))
        processes.barrier()  # the others read what the first one restored
        active = list(callbacks) if leads else []
        with _notified(active), explain_out_of_memory(NEEDS_LESS_MEMORY):
            if finished := folder.finished():
                if leads:
                    _choose_result_again(folder, finished, experiment)
                return
            _train(experiment, folder, base, data, start, active)


def _train(
    experiment: Resolved,
    folder: RunFolder,
    base: Path,
    data: Path,
    start: Path | None,
    active: list[Callback],
) -> None:
    leads = processes.rank() == 0
    state = folder.resume() if leads else None
    processes.barrier()
    if not leads:
        state = folder.newest_intact()
    trainer, choices = build_trainer(experiment, folder, base, DataPaths(data), state, start)
    active[:0] = trainer.callbacks  # in place: `_notified` ends these too
    trainer.callbacks = active
    last = trainer.run(state)
    if leads:
        record = _record(folder, trainer, choices, last)
        _log_memory_error(record)
        folder.finish(record)


@contextmanager
def _notified(active: list[Callback]) -> Iterator[None]:
    """Call `on_start` now, and `on_end` of all that are in the list by then, however it ends."""
    for callback in active:
        callback.on_start()
    try:
        yield
    except BaseException as error:
        for callback in active:
            callback.on_end(error)
        raise
    for callback in active:
        callback.on_end(None)


def _identity(experiment: Resolved, base: Path, data: Path, start: Path | None) -> RunIdentity:
    """What must be equal for a checkpoint to be resumed.

    Raises:
        UserError: The experiment starts from another one, whose checkpoint was not passed; or it
            is converted, not trained.
    """
    if experiment.config.convert_from:
        last = ExperimentPaths(experiment.name).run.last
        raise UserError(
            f"{experiment.name} is converted from {experiment.config.convert_from}, not trained.\n"
            f"  Fix: snakemake {last}, and to train it further another experiment with "
            f"method: {{start_from: {experiment.name}}}"
        )
    wanted = experiment.config.method.start_from
    if wanted and not start:
        raise UserError(
            f"{experiment.name} starts from {wanted}, but no checkpoint of it was passed.\n"
            f"  Fix: add --start {ExperimentPaths(wanted).run.last}"
        )
    return RunIdentity.of_training(experiment.train_id, base, data, start)


def _choose_result_again(folder: RunFolder, finished: TrainRecord, experiment: Resolved) -> None:
    """Rename the result of a finished run as train.keep_best now says; no model is loaded.

    Raises:
        UserError: No kept checkpoint was measured, so there is no best one.
    """
    result, losses = finished.iterations, heldout_losses(folder.paths)
    if experiment.config.train.keep_best:
        best = best_iteration(losses, among=folder.checkpoints())
        if best is None:
            raise UserError(
                f"{experiment.name} is trained already, but the held-out loss of no kept "
                "checkpoint was measured, which train.keep_best chooses by.\n"
                "  Fix: set train.keep_best: false, or delete the run to train it again with "
                f"train.validate_every: rm -r {folder.paths.folder}"
            )
        if (lowest := best_iteration(losses)) != best:
            log.warning("iteration %s had the lowest held-out loss, but is not kept", lowest)
        result = best
    log.info("already trained to iteration %d; the result is %d", finished.iterations, result)
    folder.finish(finished.model_copy(update={"result_iteration": result}))


def _log_memory_error(record: TrainRecord) -> None:
    """Log the measured peak and how far the estimate was off."""
    peak, expected = record.peak_memory_bytes, record.estimated_peak_bytes or 0
    log.info(
        "peak memory %.2f GiB, estimated %.2f GiB (%+.0f %%)",
        peak / 2**30,
        expected / 2**30,
        100 * (expected / peak - 1),
    )


def _record(folder: RunFolder, trainer: Trainer, choices: Choices, last: int) -> TrainRecord:
    """Summarise metrics.jsonl, which covers all interruptions, and what was chosen here."""
    rows = MetricsRow.read(folder.paths.metrics)
    updates = [row for row in rows if row.update]
    losses = heldout_losses(folder.paths)
    best = best_iteration(losses, among=folder.checkpoints()) if trainer.train.keep_best else None
    return TrainRecord(
        **folder.identity.model_dump(),
        iterations=len(rows),
        result_iteration=best or last,
        updates=len(updates),
        tokens=sum(row.tokens for row in rows),
        supervised_tokens=sum(row.supervised_tokens for row in rows),
        training_seconds=sum(row.time_seconds for row in rows),
        **PeakMemory.highest(rows).model_dump(),
        model_flops_utilisation=_median(row.model_flops_utilisation for row in rows),
        supervised_tokens_per_second=_median(row.supervised_tokens_per_second for row in rows),
        first_loss=updates[0].update_loss,
        last_loss=updates[-1].update_loss,
        heldout_losses=losses,
        seeds=dict.fromkeys(("python", "numpy", "torch", "data_order"), trainer.train.seed),
        processes=processes.count(),
        deepspeed=trainer.train.deepspeed,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **asdict(choices),
        versions=package_versions(),
    )


def _median(values: Iterable[float | None]) -> float:
    return statistics.median(value for value in values if value is not None)
