"""Read rows from JSON and JSON Lines files, each with the line it starts on."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaketune.errors import UserError

LFS_MARK = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Row:
    """One value of a data file and where it stands, as `file:line`."""

    value: Any
    place: str


def read_rows(path: Path) -> list[Row]:
    """Read all rows of a UTF-8 file, JSON array or JSON Lines, told apart by content.

    Raises:
        UserError: Missing, empty, a Git LFS pointer, not UTF-8, or not JSON (with the line).
    """
    text = _read_text(path)
    values = list(_values(text, path))
    if len(values) == 1 and isinstance(values[0][0], list):
        start = text.index("[") + 1
        values = list(_values(text, path, start, separator=","))
    if not values:
        raise UserError(f"{path} holds no rows.\n  Fix: put one JSON object on each line.")
    lines = _LineCounter(text)
    return [Row(value, f"{path}:{lines.at(position)}") for value, position in values]


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the data file {path}: {error.strerror}.\n"
            "  Fix: paths under `data:` are relative to experiments/; correct the path, "
            "or put the file there."
        ) from error
    if content.startswith(LFS_MARK):
        raise UserError(
            f"{path} is a Git LFS pointer, not the data itself.\n"
            "  Fix: run `git lfs pull` in the repository it came from, then copy it again."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: byte {content[error.start]:#04x} is not UTF-8.\n"
            f"  Fix: convert it, e.g. iconv -f gb18030 -t utf-8 {path.name} > fixed.jsonl"
        ) from error
    if not text.strip():
        raise UserError(f"{path} is empty.\n  Fix: put one JSON object on each line.")
    return text


def _values(
    text: str, path: Path, start: int = 0, separator: str = ""
) -> Iterator[tuple[Any, int]]:
    """Yield each JSON value and its position, up to the end of text or of the array."""
    decoder, position = json.JSONDecoder(), _skip(text, start, separator)
    while position < len(text) and not (separator and text[position] == "]"):
        try:
            value, end = decoder.raw_decode(text, position)
        except ValueError as error:
            at = getattr(error, "pos", position)
            line = text.count("\n", 0, at) + 1
            raise UserError(
                f"{path}:{line}: not valid JSON: {getattr(error, 'msg', error)}.\n"
                "  Fix: each row is one JSON object, on a line of its own or in one array."
            ) from error
        yield value, position
        position = _skip(text, end, separator)


def _skip(text: str, position: int, separator: str) -> int:
    while position < len(text) and (text[position] in " \t\r\n" or text[position] == separator):
        position += 1
    return position


class _LineCounter:
    """Line numbers of ascending positions, in one pass over the text."""

    def __init__(self, text: str) -> None:
        self.text, self.position, self.line = text, 0, 1

    def at(self, position: int) -> int:
        self.line += self.text.count("\n", self.position, position)
        self.position = position
        return self.line
