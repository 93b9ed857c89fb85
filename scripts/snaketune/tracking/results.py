"""A run's local files as MLflow shows them: metrics by name and step, tables, which artifacts.

MLflow's charts are grouped by what stands before the slash of a metric's name:

    (none)   loss, update_loss, update_loss_by_tokens, lr, grad_norm, heldout_loss
    result   the merged model's figures, one each: what an ablation is about
    probe    the same over the kept checkpoints: the base model is step 0
    cost     time, tokens, memory
    speed    of each iteration; memory likewise
    system   what the machine did, in MLflow's own names

`*_by_tokens` has the tokens seen so far as its step, so that runs with other batches compare.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

METRICS = {
    "loss": "loss",
    "update_loss": "update_loss",
    "lr": "lr",
    "grad_norm": "grad_norm",
    "time_seconds": "speed/time_seconds",
    "data_seconds": "speed/data_seconds",
    "tokens_per_second": "speed/tokens_per_second",
    "supervised_tokens_per_second": "speed/supervised_tokens_per_second",
    "model_flops_utilisation": "speed/model_flops_utilisation",
    "peak_rss_bytes": "memory/peak_rss_bytes",
    "peak_allocated_bytes": "memory/peak_allocated_bytes",
    "peak_reserved_bytes": "memory/peak_reserved_bytes",
}
"""Keys of metrics.jsonl and the metrics they become, with the iteration as step."""

COSTS = (
    "training_seconds",
    "iterations",
    "updates",
    "tokens",
    "supervised_tokens",
    "supervised_tokens_per_second",
)
"""Keys of train.json that become metrics as `cost/KEY`."""


@dataclass(frozen=True)
class Figure:
    """One value of a metric."""

    name: str
    value: float
    step: int


def tokens_seen(rows: list[dict[str, Any]]) -> dict[int, int]:
    """Return the tokens of all micro-batches so far, by iteration, of metrics.jsonl."""
    counts = accumulate(row["tokens"] for row in rows)
    return {row["iteration"]: seen for row, seen in zip(rows, counts, strict=True)}


def progress_figures(row: dict[str, Any], seen: int) -> Iterator[Figure]:
    """Give the figures of one row of metrics.jsonl."""
    for key, name in METRICS.items():
        if row.get(key) is not None:
            yield Figure(name, row[key], row["iteration"])
    if row.get("update_loss") is not None:
        yield Figure("update_loss_by_tokens", row["update_loss"], seen)


def validation_figures(row: dict[str, Any], seen: int) -> Iterator[Figure]:
    """Give the figures of one row of validation.jsonl."""
    yield Figure("heldout_loss", row["heldout_loss"], row["iteration"])
    yield Figure("heldout_loss_by_tokens", row["heldout_loss"], seen)


def system_figures(row: dict[str, Any]) -> Iterator[Figure]:
    """Give the figures of one row of system.jsonl."""
    for key, value in row.items():
        if key not in ("iteration", "unix_seconds"):
            yield Figure(f"system/{key}", value, row["iteration"])


def training_figures(train: dict[str, Any]) -> Iterator[Figure]:
    """Give the figures of train.json that variants are compared by; it is an artifact as well."""
    for key in COSTS:
        if key in train:
            yield Figure(f"cost/{key}", train[key], 0)
    if peak := peak_mib(train):
        yield Figure("cost/peak_memory_mib", peak, 0)
    if "last_loss" in train:
        yield Figure("result/training_loss", train["last_loss"], 0)


def evaluation_figures(report: dict[str, Any]) -> list[Figure]:
    """Return the figures of eval/report.json: of the merged model, and over the checkpoints.

    The merged model takes the place of the checkpoint it was made of.
    """
    models = [name for name in report["heldout"] if name not in ("adapter", "merged")]
    curve = {
        (f"probe/{name}", iteration_of(model, report["training"])): value
        for model in [*models, "merged"]
        for name, value in _of_model(report, model).items()
    }
    figures = [Figure(name, value, step) for (name, step), value in curve.items()]
    merged = _of_model(report, "merged")
    return figures + [Figure(f"result/{name}", value, 0) for name, value in merged.items()]


def iteration_of(model: str, train: dict[str, Any]) -> int:
    """Return the iteration whose weights a model of a report has: 0 of the base model."""
    if numbered := re.fullmatch(r"iter_(\d+)", model):
        return int(numbered[1])
    return 0 if model == "base" else train.get("result_iteration") or train.get("iterations", 0)


def probe_table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return probes.jsonl as a table: a row for each question and model, the merged one first."""
    models = _models(rows[0]) if rows else []
    return [
        {
            "model": model,
            "probe": row["probe"],
            "question": _text(row["question"]),
            "answer": _text(row[model].get("answer")),
            "right": row[model].get("right"),
        }
        for model in models
        for row in rows
        if isinstance(row.get(model), dict)
    ]


def answer_table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the answers of eval/report.json in the same way."""
    rows = report.get("answers", [])
    models = sorted((set().union(*rows) - {"prompt"}) if rows else (), key=_order)
    return [
        {"model": model, "prompt": row["prompt"], "answer": row[model]}
        for model in models
        for row in rows
        if model in row
    ]


def peak_mib(train: dict[str, Any]) -> float:
    """Return the memory that limits a run: allocated on a GPU, or resident without one."""
    return (train.get("peak_allocated_bytes") or train.get("peak_rss_bytes") or 0) / 2**20


def _of_model(report: dict[str, Any], model: str) -> dict[str, float]:
    """Return a model's figures by name: its probes, held-out loss and perplexity."""
    found = {name: row[model]["value"] for name, row in report["probes"].items() if model in row}
    heldout = report["heldout"][model]
    named = {"heldout_loss": heldout.get("loss"), "perplexity": heldout.get("perplexity")}
    return {name: value for name, value in (found | named).items() if value is not None}


def _models(row: dict[str, Any]) -> list[str]:
    return sorted((key for key, value in row.items() if _is_verdict(value)), key=_order)


def _is_verdict(value: Any) -> bool:
    return isinstance(value, dict) and "answer" in value


def _order(model: str) -> tuple[bool, int, str]:
    """Order models as merged, base, then the checkpoints."""
    number = re.sub(r"\D", "", model)
    return (model != "merged", int(number) if number else -1, model)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
