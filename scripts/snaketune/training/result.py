"""Which checkpoint is a run's result: the last or, with train.keep_best, the best measured."""

from collections.abc import Collection, Mapping

from snaketune.core.layout import RunPaths
from snaketune.training.train_record import ValidationRow


def heldout_losses(run: RunPaths) -> dict[int, float]:
    """The held-out losses of validation.jsonl by iteration, in the order of measurement."""
    return {row.iteration: row.heldout_loss for row in ValidationRow.read(run.validation)}


def best_iteration(losses: Mapping[int, float], among: Collection[int] | None = None) -> int | None:
    """The iteration with the lowest loss, the first of several; None if none was measured."""
    candidates = [iteration for iteration in losses if among is None or iteration in among]
    return min(candidates, key=losses.__getitem__, default=None)
