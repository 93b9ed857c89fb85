"""Signals and the terminal: who gets Ctrl-C, and what becomes of keys pressed meanwhile."""

import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def foreground() -> Iterator[None]:
    """Have the terminal's Ctrl-C for this process alone while the block runs.

    A terminal sends SIGINT to all of its foreground group, which under Snakemake is Snakemake's:
    that would end with the first answer that is stopped. So this process becomes a group of its
    own, takes the terminal's foreground and gives it back. It cannot be suspended then (Ctrl-Z),
    as Snakemake would never notice and wake it.
    """
    before = os.getpgrp()
    if before == os.getpid() or before != _foreground_group():
        yield  # a group already, in the background, or no terminal
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
    except OSError:  # stdin is no terminal, or not that of this session
        return None


def _give_terminal_to(group: int) -> None:
    stopped = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # it would stop who asks from behind
    try:
        os.tcsetpgrp(0, group)
    except OSError:
        pass  # the terminal is gone, or that group is
    finally:
        signal.signal(signal.SIGTTOU, stopped)


@contextmanager
def keys_kept() -> Iterator[None]:
    """Keep what is typed ahead for the next prompt, unseen, while the block runs.

    The terminal would echo it into an answer, and turn Enter into the key of a new line.
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
    """Have SIGTERM unwind the program while the block runs, so that the terminal is as it was."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class CtrlC:
    """Ctrl-C raises KeyboardInterrupt while something may be stopped, once, and nothing else."""

    def __init__(self) -> None:
        self._armed = False

    def __enter__(self) -> "CtrlC":
        self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def stops(self) -> Iterator[None]:
        """Let it raise while the block runs; a second press, while the first is dealt with, not."""
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def _pressed(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt
