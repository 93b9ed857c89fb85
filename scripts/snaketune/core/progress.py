"""Progress reporting for long tasks: a live bar, and a line in the log from time to time."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from snaketune.core.cli import console

log = logging.getLogger(__name__)

SECONDS_BETWEEN = 10
"""Between two lines of the log."""


def progress_bar(title: str) -> Progress:
    """Create a bar with a `status` field for its task; disabled when not on a terminal."""
    return Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def track_progress(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Context manager: a function that reports how much of the work is done.

    Args:
        total: The whole work, in `unit`.
    """
    started = logged = time.monotonic()
    with progress_bar(label) as bar:
        task = bar.add_task("", total=total, status="")

        def report(done: int) -> None:
            nonlocal logged
            now = time.monotonic()
            rate = max(done, 1) / max(now - started, 1e-6)
            eta = timedelta(seconds=round((total - done) / rate))
            speed = f"{rate:.0f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
            status = f"eta {eta}  {speed}"
            bar.update(task, completed=done, status=status)
            if now - logged > SECONDS_BETWEEN:
                logged = now
                log.info("%s: %d of %d %s  %s", label, done, total, unit, status)

        yield report
