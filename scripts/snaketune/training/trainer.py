"""The training loop.

An iteration is one micro-batch; after every `accumulate` of them the weights are updated. The
loss of an update is the sum over its tokens divided by the supervised tokens in all of its
micro-batches (by the sum of their weights, where data weighs its answers), so batch 8 × accumulate
1 and batch 1 × accumulate 8 are the same training.

A checkpoint holds the weights after the last update and the random state there. Resuming goes
back to that update and repeats the iterations since, which gives the same numbers bit for bit
without storing gradients.
"""

import logging
import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from snaketune.core.errors import Interrupted, UserError
from snaketune.experiment.schema import Train
from snaketune.models.checkpoint import CheckpointState
from snaketune.models.checkpoint_about import CheckpointAbout
from snaketune.models.packed import loss_sum
from snaketune.models.trainable import load_trained_weights, trained_weights
from snaketune.training import processes
from snaketune.training.batches import Batches
from snaketune.training.callbacks import Callback, LoopControl
from snaketune.training.engine import Engine
from snaketune.training.flops import Flops
from snaketune.training.metrics_callback import peak_memory
from snaketune.training.random_state import random_state, set_random_state
from snaketune.training.run_folder import RunFolder
from snaketune.training.schedule import learning_rate
from snaketune.training.signals import caught_signals
from snaketune.training.train_record import MetricsRow

log = logging.getLogger(__name__)


Arithmetic = Callable[[], AbstractContextManager[Any]]
"""Makes a context manager in which forward passes run in the training's precision."""


@dataclass
class Trainer:
    """Trains a model from wherever its folder's checkpoints are.

    Attributes:
        model: What `make_trainable` returned, in training mode.
        about: What a checkpoint says about itself besides its state.
        callbacks: Called in this order at every event.
    """

    model: Any
    engine: Engine
    batches: Batches
    train: Train
    folder: RunFolder
    device: torch.device
    about: CheckpointAbout
    flops: Flops
    arithmetic: Arithmetic = nullcontext
    callbacks: Sequence[Callback] = ()
    _update_losses: list[float] = field(default_factory=list)

    def run(self, state: CheckpointState | None) -> int:
        """Train to the last iteration, from a checkpoint's state or from the start.

        Returns:
            The last iteration, before the planned one where a callback ended the run.

        Raises:
            Interrupted: A signal asked to stop; a checkpoint was saved first.
        """
        start = self._restore(state) if state else 0
        control = LoopControl(start, self.batches.total, resumed=state is not None)
        self._mark_update(start)
        with caught_signals() as caught:
            for callback in self.callbacks:
                callback.on_ready(control)
            while not control.ends:
                self._advance(control, caught)
        return control.iteration

    def _advance(self, control: LoopControl, caught: Sequence[int]) -> None:
        """Run the next iteration with all that follows it, in an order that survives a kill.

        The rows of an iteration are written before its checkpoint. After a kill in between, the
        rows are dropped and the iteration is repeated; the other way round they would be lost.
        """
        control.iteration += 1
        row = self._iterate(control.iteration)
        self._notify_measured(row, control)
        # a signal may have reached one process alone: all must stop at the same iteration
        [signals] = processes.total(len(caught), device=self.device)
        due = control.save or control.iteration % self.train.save_every == 0
        if signals or due or control.ends:
            self._save(control.iteration)
        control.save = False
        if control.ends:
            return
        if signals:
            raise Interrupted(*_interruption(caught, control))
        for callback in self.callbacks:
            callback.on_iteration_end(row)

    def _notify_measured(self, row: MetricsRow, control: LoopControl) -> None:
        for callback in self.callbacks:
            callback.on_iteration(row, control)
        if row.update is not None:
            for callback in self.callbacks:
                callback.on_update(row)
        if control.validation:
            for callback in self.callbacks:
                callback.on_validation(control.validation)
        control.validation = None

    def update_of(self, iteration: int) -> range:
        """The iterations that share an update with this one; the last update may have fewer."""
        first = iteration - (iteration - 1) % self.train.accumulate
        return range(first, min(first + self.train.accumulate, self.batches.total + 1))

    def _iterate(self, iteration: int) -> MetricsRow:
        """Run one micro-batch, and the update if it is the last one of it."""
        started = time.perf_counter()
        batch = self.batches.batch(iteration).to(self.device)
        data_seconds = time.perf_counter() - started
        update = self.update_of(iteration)
        completes_update = iteration == update[-1]
        with self.arithmetic():
            loss = loss_sum(self.model, batch)
        # divided before the backward pass: gradients of all micro-batches simply add up
        self.engine.backward(loss / self.batches.loss_weight(update), completes_update)
        lr = learning_rate(iteration, self.batches.total, self.train)
        grad_norm = self.engine.update(lr) if completes_update else None
        tokens, supervised = processes.total(
            batch.input_ids.numel(), len(batch.targets), device=self.device
        )
        loss_total = processes.add(loss.detach()).item()
        self._require_finite(iteration, loss_total, grad_norm)
        self._update_losses.append(loss_total)
        seconds = time.perf_counter() - started
        row = MetricsRow(
            iteration=iteration,
            epoch=iteration / self.batches.per_epoch,
            lr=lr,
            loss=loss_total / self.batches.loss_weight([iteration]),
            update=(iteration - 1) // self.train.accumulate + 1 if completes_update else None,
            update_loss=self._take_update_loss(update) if completes_update else None,
            grad_norm=grad_norm,
            tokens=tokens,
            supervised_tokens=supervised,
            time_seconds=seconds,
            data_seconds=data_seconds,
            tokens_per_second=tokens / seconds,
            supervised_tokens_per_second=supervised / seconds,
            model_flops_utilisation=self.flops.utilisation(
                tokens / processes.count(), supervised / processes.count(), seconds
            ),
            **peak_memory().model_dump(),
        )
        if completes_update:
            self._mark_update(iteration)
        return row

    def _require_finite(self, iteration: int, loss: float, grad_norm: float | None) -> None:
        """Stop a diverged run before its weights are saved over good ones.

        Raises:
            UserError: Loss or gradient is not finite; names the rows and the last good checkpoint.
        """
        if math.isfinite(loss) and math.isfinite(grad_norm or 0.0):
            if loss == 0 or grad_norm == 0:
                zero = "loss" if loss == 0 else "gradient"
                log.warning(
                    "the %s is exactly 0 at iteration %d: the model is not learning",
                    zero,
                    iteration,
                )
            return
        last_good = next(iter(self.folder.checkpoints().values()), None)
        places = self.batches.places(iteration)
        more = f" and {len(places) - 5} more" if len(places) > 5 else ""
        raise UserError(
            f"training diverged at iteration {iteration}: loss {loss}, gradient norm {grad_norm}.\n"
            f"  Its rows: {', '.join(places[:5])}{more}.\n"
            f"  The last good checkpoint is {last_good or 'none'}.\n"
            "  Fix: lower train.lr, or raise train.warmup_ratio, and run again; look at these rows "
            "if it happens in the first iterations."
        )

    def _take_update_loss(self, update: range) -> float:
        mean = sum(self._update_losses) / self.batches.loss_weight(update)
        self._update_losses.clear()
        return mean

    def _mark_update(self, iteration: int) -> None:
        """Remember where the weights were last changed; a resumed run begins there.

        Gradients of later micro-batches are in no checkpoint, so those are repeated, with the
        random state from here: dropout draws the same numbers again.
        """
        self._resume_from, self._random = iteration, random_state(self.device)

    def _save(self, iteration: int) -> None:
        """Save a checkpoint. All processes take part: each holds a share of the state."""
        with self.engine.gathered_weights():
            weights = trained_weights(self.model) if processes.rank() == 0 else {}
        state: CheckpointState = {
            "iteration": iteration,
            "resume_from": self._resume_from,
            "weights": weights,
            "optimizer": self.engine.state(),
            "random": processes.gather(self._random),
            "about": self.about.model_dump(),
        }
        if processes.rank() == 0:
            self.folder.save(iteration, state)
        processes.barrier()  # a process that ran ahead and died must not take this save with it
        for callback in self.callbacks:
            callback.on_checkpoint(iteration, self.folder.paths.checkpoint(iteration))

    def _restore(self, state: CheckpointState) -> int:
        """Load everything a checkpoint holds, and return the iteration to resume from.

        Raises:
            UserError: The checkpoint was written with another number of processes.
        """
        before = len(state["random"] or [])
        if before != processes.count():
            raise UserError(
                f"the checkpoint was written by {before} processes, now there are "
                f"{processes.count()}: they would train on other batches.\n  Fix: set "
                f"train.processes: {before} (or CUDA_VISIBLE_DEVICES), or delete the checkpoints "
                "to start again."
            )
        with self.engine.gathered_weights():
            load_trained_weights(self.model, state["weights"])
        # after the weights: DeepSpeed makes its fp32 copies of them
        self.engine.load_state(state["optimizer"])
        # last, as loading may draw random numbers
        set_random_state((state["random"] or [])[processes.rank()], self.device)
        return state["resume_from"]


def _interruption(caught: Sequence[int], control: LoopControl) -> tuple[int, str]:
    number = caught[0] if caught else signal.SIGTERM  # another process got it
    return number, (
        f"{signal.Signals(number).name} at iteration {control.iteration} of {control.total}; its "
        "checkpoint is saved. Run the same command to resume from there."
    )
