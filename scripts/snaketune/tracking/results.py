"""A run's local files as MLflow shows them: metrics by name and step, tables, which artifacts.

MLflow's charts are grouped by what stands before the slash of a metric's name:

    (none)   loss, update_loss, update_loss_by_tokens, lr, grad_norm, heldout_loss
    after    the merged model's figures, one each: what an ablation is about, and sorted first
    probe    the same over the kept checkpoints: the base model is step 0
    agent    an agent's figures: the base model is step 0
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

COSTS = {
    "training_seconds": "cost/seconds",
    "iterations": "cost/iterations",
    "updates": "cost/updates",
    "tokens": "cost/tokens",
    "supervised_tokens_per_second": "cost/supervised_tokens_per_second",
}
"""Keys of train.json and the metrics they become: short, to be read as columns."""


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
    for key, name in COSTS.items():
        if key in train:
            yield Figure(name, train[key], 0)
    if peak := peak_mib(train):
        yield Figure("cost/peak_mib", peak, 0)


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
    return figures + [Figure(f"after/{name}", value, 0) for name, value in merged.items()]


def agent_figures(report: dict[str, Any], train: dict[str, Any]) -> Iterator[Figure]:
    """Give the figures of agent/report.json: of base and trained model, and `after/agent.*`.

    Args:
        train: train.json, for the trained model's iteration.
    """
    for name, row in report["figures"].items():
        yield Figure(f"agent/{name}", row["base"]["value"], 0)
        yield Figure(f"agent/{name}", row["tuned"]["value"], iteration_of("tuned", train))
        yield Figure(f"after/agent.{name}", row["tuned"]["value"], 0)


def iteration_of(model: str, train: dict[str, Any]) -> int:
    """Return the iteration whose weights a model of a report has: 0 of the base model."""
    if numbered := re.fullmatch(r"iter_(\d+)", model):
        return int(numbered[1])
    return 0 if model == "base" else train.get("result_iteration") or train.get("iterations", 0)


def sample_table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return samples.jsonl as a table: a row for each prompt, its last answer, then all in turn.

    MLflow's UI compares runs by a table's second column where the first one is equal.
    """
    steps = sorted({row["iteration"] for row in rows})
    said = {(row["prompt"], row["iteration"]): row["answer"] for row in rows}
    return [
        {"prompt": prompt, "answer": said.get((prompt, steps[-1]), "")}
        | {f"iteration_{step}": said.get((prompt, step), "") for step in steps}
        for prompt in dict.fromkeys(row["prompt"] for row in rows)
    ]


def probe_table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return probes.jsonl as a table: a question, the merged model's answer, the others'."""
    models = sorted({key for row in rows for key in row if _is_verdict(row[key])}, key=_order)
    return [
        {
            "question": _text(row["question"]),
            "answer": _text(row["merged"]["answer"]),
            "right": row["merged"].get("right"),
            "probe": row["probe"],
        }
        | {model: _text((row.get(model) or {}).get("answer")) for model in models[1:]}
        for row in rows
        if _is_verdict(row.get("merged"))
    ]


def answer_table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the answers of eval/report.json in the same way."""
    rows = report.get("answers", [])
    models = sorted({key for row in rows for key in row if key != "prompt"}, key=_order)
    return [
        {"prompt": row["prompt"], "answer": row["merged"]}
        | {model: row.get(model, "") for model in models if model != "merged"}
        for row in rows
    ]


def agent_table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the agent answered as a table: a question with answer and calls."""
    return [
        {"question": row["question"], "answer": row["tuned"]["text"]}
        | {"right": row["tuned"]["verdict"].get("right"), "tool": row["tool"] or ""}
        | {"calls": _calls(row["tuned"]), "base": row["base"]["text"]}
        | {"base_calls": _calls(row["base"])}
        for row in report["questions"]
    ]


def peak_mib(train: dict[str, Any]) -> float:
    """Return the memory that limits a run: allocated on a GPU, or resident without one."""
    return (train.get("peak_allocated_bytes") or train.get("peak_rss_bytes") or 0) / 2**20


def _of_model(report: dict[str, Any], model: str) -> dict[str, float]:
    """Return a model's figures by name: its probes and held-out loss."""
    probes = report["probes"].items()
    found = {name: row[model].get("value") for name, row in probes if row.get(model)}
    found["heldout_loss"] = report["heldout"][model]["loss"]
    return {name: value for name, value in found.items() if value is not None}


def _calls(told: dict[str, Any]) -> str:
    return "\n".join(f"{step['tool']} {step['tool_input']}".strip() for step in told["steps"])


def _is_verdict(value: Any) -> bool:
    return isinstance(value, dict) and "answer" in value


def _order(model: str) -> tuple[bool, int, str]:
    """Order models as merged, base, then the checkpoints."""
    number = re.sub(r"\D", "", model)
    return (model != "merged", int(number) if number else -1, model)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
