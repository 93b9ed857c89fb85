"""What decides the processed data: the sources of rows, and how rows become packs."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

Packing = bool | Literal["xtuner"]


@dataclass(frozen=True)
class RowFilter:
    """Which rows of an arXiv dump are used; see `arxiv_filter`."""

    categories: list[str] = field(default_factory=list)
    start_date: str | None = None


@dataclass(frozen=True)
class SourceSpec:
    """One source of rows; the attributes mean what the keys of the experiment file mean.

    Workers receive it with every chunk: a dataclass, as importing pydantic would delay their start.
    """

    label: str
    path: Path
    format: str
    vars: dict[str, str] = field(default_factory=dict)
    weight: float = 1.0
    max_rows: int | None = None
    map: dict[str, str] | None = None
    filter: RowFilter | None = None
    group: str | None = None
    system: str = ""

    @classmethod
    def from_key(cls, key: dict[str, Any]) -> "SourceSpec":
        """Read a source of `identity.data_key`, in which unset values are missing or null."""
        names = {attribute.name for attribute in fields(cls)}
        values = {name: value for name, value in key.items() if name in names and value is not None}
        columns = {role: name for role, name in values.pop("map", {}).items() if name is not None}
        chosen = values.pop("filter", None)
        return cls(
            **values | {"path": Path(values["path"])},
            map=columns or None,
            filter=RowFilter(**chosen) if chosen else None,
        )


@dataclass(frozen=True)
class DataSpec:
    """The whole input of the data stage besides the base model's tokenizer.

    Attributes:
        heldout: The share of the questions that is kept out of training.
    """

    sources: list[SourceSpec]
    template: str
    loss_on: str
    max_length: int
    truncation: str
    deduplicate: bool
    pack: Packing
    heldout: float

    @classmethod
    def from_key(cls, key: dict[str, Any]) -> "DataSpec":
        """Read `identity.data_key`; of the tokenizer and versions in it, only the id is made."""
        names = {attribute.name for attribute in fields(cls)}
        values = {name: value for name, value in key.items() if name in names}
        return cls(**values | {"sources": [*map(SourceSpec.from_key, key["sources"])]})
