"""Read JSON values in sequence, or the items of one array, without keeping them all in memory."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from snaketune.core.errors import UserError

BLOCK = 2**18
"""Characters that are read at once."""

_DECODER = json.JSONDecoder()
_NO_SPACE = re.compile(r"[^ \t\r\n]")


def not_json(place: str, message: str) -> UserError:
    return UserError(
        f"{place}: not valid JSON: {message.removesuffix(' at')}.\n"
        "  Fix: write each row as one JSON object, on its own line or in one array."
    )


class JsonText:
    """The JSON in a text file; `name` is the file's name in errors."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file, self._name = file, name
        self._text, self._position, self._line = "", 0, 1

    def rows(self) -> Iterator[tuple[Any, int]]:
        """Yield the values of the file, or of the one array in it, with their first lines.

        Raises:
            UserError: The text is not JSON.
        """
        if not self._take("["):
            while self._next():
                yield self._value()
            return
        more = not self._take("]")
        while more:
            yield self._value()
            more = self._take(",")
            if not more and not self._take("]"):
                raise self._error("expected ',' or ']' after a row", self._position)
        if self._next():
            raise self._error("something follows the array of rows", self._position)

    def _value(self) -> tuple[Any, int]:
        """Consume a value, and return it with its line."""
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except (ValueError, RecursionError) as error:
                if not self._read_on():
                    message = getattr(error, "msg", str(error))
                    raise self._error(message, getattr(error, "pos", self._position)) from error
                continue
            if isinstance(value, dict | list | str) or not self._read_on():  # a number may continue
                line = self._line
                self._step_to(end)
                return value, line

    def _take(self, character: str) -> bool:
        """Consume a character if it is the next."""
        taken = self._next() == character
        self._position += taken
        return taken

    def _next(self) -> str:
        """Skip white space, and return the next character without consuming it: "" at the end."""
        while True:
            match = _NO_SPACE.search(self._text, self._position)
            self._step_to(match.start() if match else len(self._text))
            if match or not self._read_on():
                return self._text[self._position : self._position + 1]

    def _step_to(self, position: int) -> None:
        self._line += self._text.count("\n", self._position, position)
        self._position = position

    def _read_on(self) -> bool:
        """Read at least as much as is left: a long value is then parsed only a few times."""
        left = self._text[self._position :]
        block = self._file.read(max(BLOCK, len(left)))
        if block:
            self._text, self._position = left + block, 0
        return bool(block)

    def _error(self, message: str, position: int) -> UserError:
        line = self._line + self._text.count("\n", self._position, position)
        return not_json(f"{self._name}:{line}", message)
