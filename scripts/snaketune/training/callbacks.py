"""What can be added to a training without touching its loop: one class for each addition.

The loop measures and saves. Showing progress, writing files, validating, sampling and MLflow are
callbacks. `build.callbacks` lists SnakeTune's own; `train` takes more.
"""

from dataclasses import dataclass
from pathlib import Path

from snaketune.training.train_record import MetricsRow, ValidationRow


@dataclass
class LoopControl:
    """Where the loop is, and what callbacks may request of it.

    Attributes:
        iteration: The last one completed; before the first, the one that training resumes from.
        total: Iterations of the whole run.
        resumed: Whether the run goes on from a checkpoint.
        stop: Set it to end the run after this iteration, as if it were the last.
        save: Set it to have a checkpoint after this iteration.
        validation: Set it to what was measured; `on_validation` follows.
    """

    iteration: int
    total: int
    resumed: bool = False
    stop: bool = False
    save: bool = False
    validation: ValidationRow | None = None

    @property
    def ends(self) -> bool:
        """Whether no iteration follows."""
        return self.stop or self.iteration >= self.total


class Callback:
    """Base class: override what you need. An error in any of them ends the training.

    The events of a run, in this order; those of an iteration repeat:

        on_start → on_ready → (on_iteration → on_update → on_validation → on_checkpoint →
        on_iteration_end)* → on_end
    """

    def on_start(self) -> None:
        """The folder belongs to this run, and nothing is loaded yet."""

    def on_ready(self, control: LoopControl) -> None:
        """Everything is loaded; the iteration after `control.iteration` comes next."""

    def on_iteration(self, row: MetricsRow, control: LoopControl) -> None:
        """A micro-batch is done. Files must be written here: a checkpoint may be saved next."""

    def on_update(self, row: MetricsRow) -> None:
        """The weights were changed; `row` is of the update's last micro-batch."""

    def on_validation(self, row: ValidationRow) -> None:
        """The held-out loss was measured."""

    def on_checkpoint(self, iteration: int, path: Path) -> None:
        """A checkpoint is complete on the disk."""

    def on_iteration_end(self, row: MetricsRow) -> None:
        """All that the iteration wrote is on the disk, and another one follows.

        The place for what may take long or fail, such as a server: nothing waits to be saved.
        """

    def on_end(self, error: BaseException | None) -> None:
        """The run is over: train.json is written, or `error` stopped it, at any point."""
