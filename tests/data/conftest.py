"""A data stage run on rows given by the test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snaketune.data.prepare import prepare

SPEC = {
    "template": "auto",
    "loss_on": "assistant",
    "max_length": 128,
    "truncation": "right",
    "deduplicate": False,
    "pack": True,
    "heldout": 0.0,
}


def chat(*contents: str, system: str | None = None) -> list[dict[str, Any]]:
    """Return messages that alternate user, assistant, after a system message if one is given."""
    head = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return head + [
        {"role": roles[index % 2], "content": content} for index, content in enumerate(contents)
    ]


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Write rows to a JSON Lines file and return the source that names it."""

    def source(rows: list[Any], name: str = "rows", **changes: Any) -> dict[str, Any]:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        given = {"label": name, "path": str(path), "format": "alpaca", "vars": {}}
        return given | {"weight": 1.0, "max_rows": None} | changes

    return source


@pytest.fixture
def run(tmp_path: Path, bases: dict[str, Path]) -> Callable[..., dict[str, Any]]:
    """Prepare sources with the ChatML tokenizer into `tmp_path / output`; return the report."""

    def run(
        *sources: dict[str, Any], output: str = "out", workers: int = 1, **changes: Any
    ) -> dict[str, Any]:
        spec = SPEC | changes | {"sources": sources}
        return prepare(spec, bases["chatml"], tmp_path / output, workers)

    return run
