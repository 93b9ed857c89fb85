"""A data stage run on rows given by the test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snaketune.data.data_spec import DataSpec
from snaketune.data.prepare import prepare
from snaketune.data.storage import Packs

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


def bracketed(parts: list[dict[str, Any]]) -> str:
    """Return a sample of a report with what is learned between ⟦ and ⟧."""
    return "".join(f"⟦{part['text']}⟧" if part["learned"] else part["text"] for part in parts)


def samples_of(path: Path) -> list[list[int]]:
    """Return the token ids of each sample in a file of packs."""
    samples = []
    for pack in Packs(path):
        ends = pack.lengths.cumsum()
        for start, end in zip(ends - pack.lengths, ends, strict=True):
            samples.append(pack.input_ids[start:end].tolist())
    return samples


@pytest.fixture(scope="session")
def tokenizer(bases: dict[str, Path]) -> Any:
    """The ChatML tokenizer as transformers loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(bases["chatml"])


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
        report = prepare(DataSpec.from_key(spec), bases["chatml"], tmp_path / output, workers)
        return report.model_dump(mode="json")

    return run
