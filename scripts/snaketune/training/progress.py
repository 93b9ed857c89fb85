"""What a run shows while it works: a live bar, XTuner's log line, and metrics.jsonl."""

import logging
import resource
import time
from datetime import timedelta
from pathlib import Path

import torch

from snaketune.core.progress import progress_bar
from snaketune.training.train_record import MetricsRow, PeakMemory

log = logging.getLogger(__name__)


class Meter:
    """Shows and records the iterations of a run.

    Args:
        total: Iterations of the whole run.
        done: Iterations that earlier, interrupted runs did.
        every: Iterations between two lines of the log.
    """

    def __init__(self, metrics: Path, total: int, done: int, every: int) -> None:
        self.metrics, self.total, self.done, self.every = metrics, total, done, every
        self._started, self._first = time.monotonic(), done
        self._bar = progress_bar("training")
        self._task = self._bar.add_task("", total=total, completed=done, status="")

    def __enter__(self) -> "Meter":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def record(self, row: MetricsRow) -> None:
        """Append a row to metrics.jsonl, move the bar, and log every so often."""
        self.done = row.iteration
        row.append(self.metrics)
        eta = timedelta(seconds=round(self.eta()))
        status = f"eta {eta}  loss {row.loss:.3f}  {row.tokens_per_second:.0f} tokens/s  "
        status += f"{row.peak_memory_bytes / 2**20:.0f} MiB"
        self._bar.update(self._task, completed=self.done, status=status)
        if self.done % self.every == 0 or self.done == self.total:
            log.info(log_line(row, self.total, self.eta()))

    def eta(self) -> float:
        """Return the seconds left at the pace of this process so far."""
        paced = self.done - self._first
        elapsed = time.monotonic() - self._started
        return elapsed / paced * (self.total - self.done) if paced else 0.0


def log_line(row: MetricsRow, total: int, eta: float) -> str:
    """Return the line of an iteration, laid out as in XTuner's log; memory is in MiB."""
    line = (
        f"Iter(train) [{row.iteration:>{len(str(total))}}/{total}]  lr: {row.lr:.4e}  "
        f"eta: {timedelta(seconds=round(eta))}  time: {row.time_seconds:.4f}  "
        f"data_time: {row.data_seconds:.4f}  memory: {row.peak_memory_bytes / 2**20:.0f}  "
        f"loss: {row.loss:.4f}"
    )
    if row.grad_norm is not None:
        line += f"  grad_norm: {row.grad_norm:.4f}"
    return line + f"  tokens_per_second: {row.tokens_per_second:.1f}"


def peak_memory() -> PeakMemory:
    """Measure peaks: resident so far and, on a GPU, what was held since the last call."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if not torch.cuda.is_available():
        return PeakMemory(peak_rss_bytes=resident)
    peaks = PeakMemory(
        peak_rss_bytes=resident,
        peak_allocated_bytes=torch.cuda.max_memory_allocated(),
        peak_reserved_bytes=torch.cuda.max_memory_reserved(),
    )
    torch.cuda.reset_peak_memory_stats()
    return peaks
