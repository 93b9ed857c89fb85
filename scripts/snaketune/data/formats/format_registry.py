"""The registry of data formats, and their automatic recognition."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from snaketune.data.conversation import Conversation, RowError, SkippedRow, UnsupportedRow

Parse = Callable[[Any], list[Conversation]]
"""From one row to its conversations, usually one.

It raises `RowError` for a row of another shape, which stops the preparation, and `SkippedRow` for a
row that is well formed but has nothing to learn from, which is counted and left out.
"""


@dataclass(frozen=True)
class DataFormat:
    """A named shape of rows.

    Attributes:
        description: What a row looks like, one line of Markdown for docs/reference.md.
        more_specific_than: Formats that also accept every such row and would lose a part of it.
        marker: Text that a row must contain to be recognised, for a shape that others share.
    """

    name: str
    parse: Parse
    description: str
    more_specific_than: frozenset[str]
    marker: str

    def accepts(self, row: Any) -> bool:
        """Tell whether a row has this shape: parsing it is the test."""
        if self.marker and self.marker not in str(row):
            return False
        try:
            self.parse(row)
        except UnsupportedRow:
            return True
        except (RowError, SkippedRow):
            return False
        return True


FORMATS: dict[str, DataFormat] = {}
"""Every format by its name, as `format:` takes it."""


def data_format(
    description: str, *, more_specific_than: Iterable[str] = (), marker: str = ""
) -> Callable[[Parse], Parse]:
    """Register a function as the data format of its name; see `DataFormat` for the arguments."""

    def register(parse: Parse) -> Parse:
        name = parse.__name__
        FORMATS[name] = DataFormat(name, parse, description, frozenset(more_specific_than), marker)
        return parse

    return register


def recognise(rows: Iterable[Any]) -> list[str]:
    """Name the formats that all rows have; exactly one if there is no doubt."""
    candidates = list(FORMATS.values())
    for row in rows:
        candidates = [candidate for candidate in candidates if candidate.accepts(row)]
    less_specific = {name for candidate in candidates for name in candidate.more_specific_than}
    return sorted({candidate.name for candidate in candidates} - less_specific)
