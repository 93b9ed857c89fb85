"""Errors that users can act on: what is wrong, where, what was expected, how to fix it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the input or on the machine, reported without a traceback (exit status 1)."""


class Interrupted(Exception):
    """A stage stopped by a signal after saving its progress.

    Args:
        signum: The signal's number; the program exits with 128 + signum, as shells do.
        message: What was saved and how to resume.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` with the known word most like `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
