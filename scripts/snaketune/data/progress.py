"""How far a long preparation is: a live bar, and a line of the log every so often."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from snaketune.cli import progress_bar

log = logging.getLogger(__name__)

SECONDS_BETWEEN = 10
"""Time from one line of the log to the next."""


@contextmanager
def watching(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how many of a source's rows are done, and shows it."""
    started = told = time.monotonic()
    with progress_bar(label) as bar:
        task = bar.add_task("", total=total, status="")

        def tell(done: int) -> None:
            nonlocal told
            now = time.monotonic()
            rate = done / (now - started)
            eta = timedelta(seconds=round((total - done) / rate))
            status = f"eta {eta}  {rate:.0f} rows/s"
            bar.update(task, completed=done, status=status)
            if now - told > SECONDS_BETWEEN:
                told = now
                log.info("%s: %d of %d rows  %s", label, done, total, status)

        yield tell
