"""What a run shows while it works: a live bar and XTuner's log line."""

import logging
import time
from datetime import timedelta

from snaketune.core.progress import progress_bar
from snaketune.training.callbacks import Callback, LoopControl
from snaketune.training.train_record import MetricsRow

log = logging.getLogger(__name__)


class ProgressCallback(Callback):
    """Moves a bar, and logs a line every so often.

    Args:
        log_every: Iterations between two lines of the log.
    """

    def __init__(self, log_every: int) -> None:
        self.log_every = log_every
        self._bar = progress_bar("training")

    def on_ready(self, control: LoopControl) -> None:
        """Show the bar, with what earlier, interrupted runs did."""
        self._started, self._first = time.monotonic(), control.iteration
        self._task = self._bar.add_task(
            "", total=control.total, completed=control.iteration, status=""
        )
        self._bar.start()

    def on_iteration(self, row: MetricsRow, control: LoopControl) -> None:
        """Move the bar, and log if it is time."""
        left = self.seconds_left(control)
        status = f"eta {timedelta(seconds=round(left))}  loss {row.loss:.3f}  "
        status += f"{row.tokens_per_second:.0f} tokens/s  {row.peak_memory_bytes / 2**20:.0f} MiB"
        self._bar.update(self._task, completed=row.iteration, status=status)
        if row.iteration % self.log_every == 0 or row.iteration == control.total:
            log.info(log_line(row, control.total, left))

    def on_end(self, error: BaseException | None) -> None:
        """Take the bar away."""
        self._bar.stop()

    def seconds_left(self, control: LoopControl) -> float:
        """Time to the end at the pace of this process so far."""
        done = control.iteration - self._first
        elapsed = time.monotonic() - self._started
        return elapsed / done * (control.total - control.iteration) if done else 0.0


def log_line(row: MetricsRow, total: int, seconds_left: float) -> str:
    """The line of an iteration, laid out as in XTuner's log; memory is in MiB."""
    line = (
        f"Iter(train) [{row.iteration:>{len(str(total))}}/{total}]  lr: {row.lr:.4e}  "
        f"eta: {timedelta(seconds=round(seconds_left))}  time: {row.time_seconds:.4f}  "
        f"data_time: {row.data_seconds:.4f}  memory: {row.peak_memory_bytes / 2**20:.0f}  "
        f"loss: {row.loss:.4f}"
    )
    if row.grad_norm is not None:
        line += f"  grad_norm: {row.grad_norm:.4f}"
    return line + f"  tokens_per_second: {row.tokens_per_second:.1f}"
