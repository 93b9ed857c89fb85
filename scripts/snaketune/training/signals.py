"""SIGINT and SIGTERM as a wish to stop after the current iteration."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

REPEATED_SECONDS = 1.0
"""Window in which repeated signals count as one."""


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying; a later one acts at once.

    Signals within REPEATED_SECONDS count as one: on Ctrl-C a terminal signals every process of a
    job, and a launcher among them (torchrun, Snakemake) passes it on to those below it.
    """
    caught: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    deadline = math.inf

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def note(number: int, _: object) -> None:
        nonlocal deadline
        caught.append(number)
        if time.monotonic() > deadline:
            restore()
            signal.raise_signal(number)
        deadline = min(deadline, time.monotonic() + REPEATED_SECONDS)

    for number in handlers:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        restore()
