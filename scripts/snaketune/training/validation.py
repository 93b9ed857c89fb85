"""The held-out loss while training, and what follows from it: stopping early, the best so far."""

import math
from collections.abc import Container
from typing import Any

import torch

from snaketune.core.errors import UserError
from snaketune.data.storage import Packs
from snaketune.experiment.schema import Train
from snaketune.models.packed import loss_sum
from snaketune.training import processes
from snaketune.training.batches import Batches
from snaketune.training.run_folder import RunFolder
from snaketune.training.train_record import ValidationRow


class Validation:
    """Measures the held-out loss every `train.validate_every` iterations.

    What was measured is in validation.jsonl, so a resumed run knows its best.

    Args:
        packs: The held-out packs.

    Raises:
        UserError: It is to measure, and nothing is held out.
    """

    def __init__(self, train: Train, packs: Packs, folder: RunFolder) -> None:
        if train.validate_every and not len(packs):
            raise UserError(
                "train.validate_every asks for the held-out loss, and no rows are held out.\n"
                "  Fix: set evaluate.heldout to a share of the rows, e.g. 0.1."
            )
        each = Train(batch_size=train.batch_size, epochs=1)
        self.batches = Batches(packs, each, processes.rank(), processes.count())
        self.patience, self.every = train.early_stop, train.validate_every
        self.file = folder.paths.validation
        self.measured = {row.iteration: row.heldout_loss for row in ValidationRow.read(self.file)}

    def is_due(self, iteration: int, last: bool) -> bool:
        """Tell whether to measure after an iteration; the last is always measured."""
        return self.every is not None and (last or iteration % self.every == 0)

    def measure(self, model: Any, iteration: int, where: torch.device) -> float:
        """Return the mean loss over all held-out tokens, and note it."""
        model.eval()
        loss = _mean(model, self.batches, where)
        model.train()
        self.measured[iteration] = loss
        if processes.rank() == 0:
            ValidationRow(iteration=iteration, heldout_loss=loss).append(self.file)
        return loss

    def best(self, among: Container[int] | None = None) -> int | None:
        """Return the iteration with the lowest loss, the first of several."""
        known = [n for n in self.measured if among is None or n in among]
        return min(known, key=self.measured.__getitem__, default=None)

    def hopeless(self) -> bool:
        """Tell whether the last `early_stop` measurements were no better than one before them."""
        losses = list(self.measured.values())
        if not self.patience or len(losses) <= self.patience:
            return False
        return min(losses[-self.patience :]) >= min(losses[: -self.patience], default=math.inf)


def _mean(model: Any, batches: Batches, where: torch.device) -> float:
    """Return the loss over all supervised tokens of one epoch, over all processes."""
    numbers, total = range(1, batches.total + 1), torch.zeros((), device=where)
    with torch.no_grad():
        for number in numbers:
            total += loss_sum(model, batches.batch(number).to(where))
    return processes.add(total).item() / batches.loss_weight(numbers)
