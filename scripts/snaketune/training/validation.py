"""The held-out loss while training, and what follows from it: stopping early, keeping the best."""

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from snaketune.core.errors import UserError
from snaketune.core.layout import RunPaths
from snaketune.data.storage import Packs
from snaketune.experiment.schema import Train
from snaketune.models.packed import loss_sum
from snaketune.training import processes
from snaketune.training.batches import Batches
from snaketune.training.callbacks import Callback, LoopControl
from snaketune.training.result import best_iteration, heldout_losses
from snaketune.training.train_record import MetricsRow, ValidationRow

log = logging.getLogger(__name__)


class Validation(Callback):
    """Measures the held-out loss every `train.validate_every` iterations, and at the end.

    Earlier measurements are in validation.jsonl, so a resumed run knows its best.

    Args:
        packs: The held-out packs.
        mean_loss: Measures the loss.

    Raises:
        UserError: It is to measure, and no rows are held out.
    """

    def __init__(
        self, train: Train, packs: Packs, run: RunPaths, mean_loss: Callable[[], float]
    ) -> None:
        if train.validate_every and not len(packs):
            raise UserError(
                "train.validate_every asks for the held-out loss, but no rows are held out.\n"
                "  Fix: set evaluate.heldout to a share of the rows, e.g. 0.1."
            )
        self.train, self.file, self.mean_loss = train, run.validation, mean_loss
        self.losses = heldout_losses(run)

    def on_ready(self, control: LoopControl) -> None:
        """End a run that had stopped early when it was killed, before train.json was written."""
        control.stop = control.stop or self.should_stop_early()

    def on_iteration(self, row: MetricsRow, control: LoopControl) -> None:
        """Measure if it is time, and request what follows."""
        every = self.train.validate_every
        if every is None or not (control.ends or row.iteration % every == 0):
            return
        loss = self.mean_loss()
        log.info("held-out loss %.4f at iteration %d", loss, row.iteration)
        self.losses[row.iteration] = loss
        control.validation = ValidationRow(iteration=row.iteration, heldout_loss=loss)
        if processes.rank() == 0:
            control.validation.append(self.file)
        if self.train.keep_best and best_iteration(self.losses) == row.iteration:
            control.save = True
        if self.should_stop_early():
            log.info("no lower held-out loss in %d measurements: stopping", self.train.early_stop)
            control.stop = True

    def should_stop_early(self) -> bool:
        """Whether the last `early_stop` measurements were no better than one before them."""
        losses, patience = list(self.losses.values()), self.train.early_stop
        if not patience or len(losses) <= patience:
            return False
        return min(losses[-patience:]) >= min(losses[:-patience], default=math.inf)


def heldout_batches(train: Train, packs: Packs) -> Batches:
    """All held-out packs once, shared by the processes."""
    once = Train(batch_size=train.batch_size, epochs=1)
    return Batches(packs, once, processes.rank(), processes.count())


def mean_loss(
    model: Any,
    batches: Batches,
    device: torch.device,
    arithmetic: Callable[[], AbstractContextManager[Any]],
) -> float:
    """The loss over all supervised tokens of one epoch, over all processes.

    No dropout and no random numbers: measuring changes no bit of the training.
    """
    model.eval()
    iterations, total = range(1, batches.total + 1), torch.zeros((), device=device)
    with torch.no_grad(), arithmetic():
        for iteration in iterations:
            total += loss_sum(model, batches.batch(iteration).to(device))
    model.train()
    return processes.add(total).item() / batches.loss_weight(iterations)
