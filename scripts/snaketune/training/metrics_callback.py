"""metrics.jsonl: one row for each iteration; and the peaks of memory in it."""

import resource
from pathlib import Path

import torch

from snaketune.training.callbacks import Callback, LoopControl
from snaketune.training.train_record import MetricsRow, PeakMemory


class MetricsCallback(Callback):
    """Appends every iteration's row to a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_iteration(self, row: MetricsRow, control: LoopControl) -> None:
        """Append the row."""
        row.append(self.file)


def peak_memory() -> PeakMemory:
    """Measure peaks: resident so far and, on a GPU, what was held since the last call.

    Peaks, not what is allocated now: an iteration's activations are gone when it ends.
    """
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    if not torch.cuda.is_available():
        return PeakMemory(peak_rss_bytes=resident)
    peaks = PeakMemory(
        peak_rss_bytes=resident,
        peak_allocated_bytes=torch.cuda.max_memory_allocated(),
        peak_reserved_bytes=torch.cuda.max_memory_reserved(),
    )
    torch.cuda.reset_peak_memory_stats()
    return peaks
