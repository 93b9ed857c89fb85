"""How far long work is: a live bar, and a line of the log every so often."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from snaketune.core.cli import console

log = logging.getLogger(__name__)

SECONDS_BETWEEN = 10
"""Time from one line of the log to the next."""


def progress_bar(title: str) -> Progress:
    """Return a bar with done and total, and a `status` for its task; none if nobody watches."""
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
    """Give a function that is told how much of the work is done, and shows it.

    Args:
        total: How much there is, in `unit`.
    """
    started = told = time.monotonic()
    with progress_bar(label) as bar:
        task = bar.add_task("", total=total, status="")

        def tell(done: int) -> None:
            nonlocal told
            now = time.monotonic()
            rate = max(done, 1) / max(now - started, 1e-6)
            eta = timedelta(seconds=round((total - done) / rate))
            speed = f"{rate:.0f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
            status = f"eta {eta}  {speed}"
            bar.update(task, completed=done, status=status)
            if now - told > SECONDS_BETWEEN:
                told = now
                log.info("%s: %d of %d %s  %s", label, done, total, unit, status)

        yield tell
