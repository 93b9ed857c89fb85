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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from snaketune.core.errors import Interrupted, UserError
from snaketune.experiment.schema import Sample, Train
from snaketune.models.adapter import load_trained_weights, trained_weights
from snaketune.models.checkpoint_about import CheckpointAbout
from snaketune.models.packed import loss_sum
from snaketune.training import processes
from snaketune.training.batches import Batches
from snaketune.training.engine import Engine
from snaketune.training.flops import Flops
from snaketune.training.progress import Meter, peak_memory
from snaketune.training.run_folder import RunFolder
from snaketune.training.schedule import learning_rate
from snaketune.training.train_record import MetricsRow, SampleRow
from snaketune.training.validation import Validation

log = logging.getLogger(__name__)

REPEATED_SECONDS = 1.0
"""How long after a signal another one is the same wish to stop, and not impatience."""


@dataclass
class Trainer:
    """Trains a model from wherever its folder's checkpoints are.

    Attributes:
        model: What `make_trainable` returned, in training mode.
        autocast: The arithmetic's dtype where trained weights are of more bits, None elsewhere.
        answers: Returns the model's answers to `sample.prompts`.
        about: What a checkpoint tells of itself besides the state: ids, method, template.
        heartbeat: Called with the iteration after each one, when all it wrote is written.
    """

    model: Any
    engine: Engine
    batches: Batches
    train: Train
    sample: Sample
    folder: RunFolder
    where: torch.device
    answers: Callable[[], list[str]]
    about: CheckpointAbout
    validation: Validation
    flops: Flops
    autocast: torch.dtype | None = None
    heartbeat: Callable[[int], None] = lambda iteration: None
    _update_loss: list[float] = field(default_factory=list)

    def run(self, state: dict[str, Any] | None) -> int:
        """Train to the last iteration, from a checkpoint's state or from the start.

        Returns:
            The iteration whose checkpoint is the result: the last, or the best if that is kept.

        Raises:
            Interrupted: A signal asked to stop; a checkpoint was saved first.
        """
        start = self._restore(state) if state else 0
        if self.validation.hopeless():
            return self.result(start)
        self._mark_update(start)
        total = self.batches.total
        with caught_signals() as caught, self._meter(start) as meter:
            if state is None:
                self._sample(0)
            for iteration in range(start + 1, total + 1):
                row = self._iterate(iteration)
                if meter:
                    meter.record(row)
                ends = self._validate(iteration) or iteration == total
                if iteration % self.sample.every == 0 or ends:
                    self._sample(iteration)
                [stopping] = processes.total(len(caught), where=self.where)
                if stopping or ends or self._is_saved(iteration):
                    self._save(iteration)
                if ends:
                    return self.result(iteration)
                if stopping:
                    raise Interrupted(*_stopped(caught, iteration, total))
                self.heartbeat(iteration)
        return self.result(start)

    def result(self, last: int) -> int:
        """Return the iteration whose checkpoint is the run's result."""
        if not self.train.keep_best:
            return last
        return self.validation.best(among=self.folder.checkpoints()) or last

    def _is_saved(self, iteration: int) -> bool:
        best = self.train.keep_best and self.validation.best() == iteration
        return best or iteration % self.train.save_every == 0

    def _validate(self, iteration: int) -> bool:
        """Measure the held-out loss if it is time, and tell whether to stop early."""
        if not self.validation.is_due(iteration, iteration == self.batches.total):
            return False
        with self._arithmetic():
            loss = self.validation.measure(self.model, iteration, self.where)
        log.info("held-out loss %.4f at iteration %d", loss, iteration)
        if not self.validation.hopeless():
            return False
        log.info("no lower held-out loss in %d measurements: stopping", self.train.early_stop)
        return True

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.where.type, self.autocast)

    def update_of(self, iteration: int) -> range:
        """Return the iterations that share an update with this one; the last may have fewer."""
        first = iteration - (iteration - 1) % self.train.accumulate
        return range(first, min(first + self.train.accumulate, self.batches.total + 1))

    def _iterate(self, iteration: int) -> MetricsRow:
        """Run one micro-batch, and the update if it is the last of one; return its metrics."""
        started = time.perf_counter()
        batch = self.batches.batch(iteration).to(self.where)
        data_seconds = time.perf_counter() - started
        update = self.update_of(iteration)
        last = iteration == update[-1]
        with self._arithmetic():
            loss = loss_sum(self.model, batch)
        self.engine.backward(loss / self.batches.loss_weight(update), last)
        lr = learning_rate(iteration, self.batches.total, self.train)
        grad_norm = self.engine.update(lr) if last else None
        tokens, supervised = processes.total(
            batch.input_ids.numel(), len(batch.targets), where=self.where
        )
        total_loss = processes.add(loss.detach()).item()
        self._require_finite(iteration, total_loss, grad_norm)
        self._update_loss.append(total_loss)
        seconds = time.perf_counter() - started
        row = MetricsRow(
            iteration=iteration,
            epoch=iteration / self.batches.per_epoch,
            lr=lr,
            loss=total_loss / self.batches.loss_weight([iteration]),
            update=(iteration - 1) // self.train.accumulate + 1 if last else None,
            update_loss=self._finish_update(update) if last else None,
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
        if last:
            self._mark_update(iteration)
        return row

    def _require_finite(self, iteration: int, loss: float, grad_norm: float | None) -> None:
        """Stop a diverged run before its weights are saved over good ones.

        Raises:
            UserError: The loss or the gradient is no number; names the rows and the way back.
        """
        if math.isfinite(loss) and math.isfinite(grad_norm or 0.0):
            if loss == 0 or grad_norm == 0:
                zero = "loss" if loss == 0 else "gradient"
                log.warning(
                    "the %s is exactly 0 at iteration %d: nothing is learned", zero, iteration
                )
            return
        good = next(iter(self.folder.checkpoints().values()), None)
        places = self.batches.places(iteration)
        more = f" and {len(places) - 5} more" if len(places) > 5 else ""
        raise UserError(
            f"training diverged at iteration {iteration}: loss {loss}, gradient norm {grad_norm}.\n"
            f"  Its rows: {', '.join(places[:5])}{more}.\n"
            f"  The last good checkpoint is {good or 'none'}.\n"
            "  Fix: lower train.lr, or raise train.warmup_ratio, and run again; look at these rows "
            "if it happens at the first iterations."
        )

    def _finish_update(self, update: range) -> float:
        mean = sum(self._update_loss) / self.batches.loss_weight(update)
        self._update_loss.clear()
        return mean

    def _mark_update(self, iteration: int) -> None:
        """Remember where the weights were last changed: there a resumed run begins."""
        self._resume_from, self._random = iteration, random_state(self.where)

    def _sample(self, iteration: int) -> None:
        """Write the answers; where weights are split, every process helps to find them."""
        if self.sample.prompts and (processes.rank() == 0 or self.engine.splits_weights):
            with self._arithmetic():
                answers = self.answers()
            if processes.rank() == 0:
                for prompt, answer in zip(self.sample.prompts, answers, strict=True):
                    row = SampleRow(iteration=iteration, prompt=prompt, answer=answer)
                    row.append(self.folder.paths.samples)
        processes.wait()

    def _save(self, iteration: int) -> None:
        with self.engine.whole_weights():
            weights = trained_weights(self.model) if processes.rank() == 0 else None
        state = {
            "iteration": iteration,
            "resume_from": self._resume_from,
            "weights": weights,
            "optimizer": self.engine.state(),
            "random": processes.gather(self._random),
            "about": self.about.model_dump(),
        }
        if processes.rank() == 0:
            best = self.validation.best() if self.train.keep_best else None
            self.folder.save(iteration, state, best)
        processes.wait()

    def _restore(self, state: dict[str, Any]) -> int:
        """Put everything back, and return the iteration to go on from.

        Raises:
            UserError: The checkpoint was written with another number of processes.
        """
        before = len(state["random"])
        if before != processes.count():
            raise UserError(
                f"the checkpoint was written by {before} processes, now there are "
                f"{processes.count()}: they would train on other batches.\n  Fix: set "
                f"train.processes: {before} (or CUDA_VISIBLE_DEVICES), or delete the checkpoints "
                "to start again."
            )
        with self.engine.whole_weights():
            load_trained_weights(self.model, state["weights"])
        self.engine.load_state(state["optimizer"])
        set_random_state(state["random"][processes.rank()], self.where)
        return state["resume_from"]

    def _meter(self, start: int) -> AbstractContextManager[Meter | None]:
        """Return what shows and records the iterations, on rank 0 alone."""
        if processes.rank() > 0:
            return nullcontext()
        return Meter(self.folder.paths.metrics, self.batches.total, start, self.train.log_every)


def random_state(where: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of every generator that training draws from."""
    state = {"cpu": torch.get_rng_state()}
    if where.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(where)
    return state


def set_random_state(state: dict[str, torch.Tensor], where: torch.device) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if where.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], where)


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying; one that comes later again acts at once.

    Within REPEATED_SECONDS it is the same wish: on Ctrl-C a terminal signals every process of a
    job, and a launcher among them passes it on to those below it.
    """
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    deadline = math.inf

    def note(number: int, _: object) -> None:
        nonlocal deadline
        caught.append(number)
        if time.monotonic() > deadline:
            for each, handler in before.items():
                signal.signal(each, handler)
            signal.raise_signal(number)
        deadline = min(deadline, time.monotonic() + REPEATED_SECONDS)

    for number in numbers:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _stopped(caught: list[int], iteration: int, total: int) -> tuple[int, str]:
    number = caught[0] if caught else signal.SIGTERM
    return number, (
        f"{signal.Signals(number).name} at iteration {iteration} of {total}; its checkpoint is "
        "saved. Run the same command to go on from there."
    )
