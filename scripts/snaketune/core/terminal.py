"""Signals and the terminal: which process gets Ctrl-C, and what happens to type-ahead."""

import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def foreground() -> Iterator[None]:
    """Make this process the only one that gets the terminal's Ctrl-C while the block runs.

    A terminal sends SIGINT to its whole foreground process group, which under Snakemake includes
    Snakemake: stopping an answer would end that, too. So this process becomes a group of its own,
    takes the terminal's foreground and gives it back. Ctrl-Z is ignored meanwhile, since Snakemake
    would not notice that its job is suspended and nothing would wake it.
    """
    before = os.getpgrp()
    if before == os.getpid() or before != _foreground_group():
        yield  # already a group of its own, in the background, or without a terminal
        return
    os.setpgid(0, 0)
    _give_terminal_to(os.getpid())
    suspend = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, suspend)
        _give_terminal_to(before)


def _foreground_group() -> int | None:
    try:
        return os.tcgetpgrp(0)
    except OSError:  # stdin is not a terminal, or not that of this session
        return None


def _give_terminal_to(group: int) -> None:
    # SIGTTOU stops a background process that changes the terminal
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        os.tcsetpgrp(0, group)
    except OSError:
        pass  # the terminal or the group no longer exists
    finally:
        signal.signal(signal.SIGTTOU, before)


@contextmanager
def keys_kept() -> Iterator[None]:
    """Keep type-ahead for the next prompt, without echo, while the block runs.

    The terminal would echo it into an answer, and translate Enter (CR) to the line break (LF) that
    inserts a new line at the prompt.
    """
    before = termios.tcgetattr(0)
    changed = termios.tcgetattr(0)
    changed[0] &= ~termios.ICRNL
    changed[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(0, termios.TCSANOW, changed)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def ends_cleanly() -> Iterator[None]:
    """Let SIGTERM unwind the program while the block runs, so that the terminal is restored."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class CtrlC:
    """Ctrl-C raises KeyboardInterrupt, once, while a `stops` block runs; else it is ignored."""

    def __init__(self) -> None:
        self._armed = False

    def __enter__(self) -> "CtrlC":
        self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def stops(self) -> Iterator[None]:
        """Let Ctrl-C raise while the block runs; a second press does not interrupt the cleanup."""
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def _pressed(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt
