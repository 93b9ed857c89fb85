"""Result files of variants that nobody trained, laid out as the stages write them."""

import json
import math
import random
from pathlib import Path
from typing import Any

from snaketune.experiment import Experiment, data_id, train_id
from snaketune.experiment.identity import base_id
from snaketune.scoring.intervals import share

PROMPTS = ["Who are you?", "What is the capital of France?"]
QUESTIONS = 20

CATALOG = {
    "catalog/models.yaml": "tiny:\n  source: ./tiny\n",
    "catalog/datasets.yaml": (
        "persona: {path: rows.jsonl, format: alpaca}\ngeneral: {path: rows.jsonl, format: alpaca}\n"
    ),
    "rows.jsonl": "{}\n",
    **{f"probes/{name}.yaml": "[]" for name in ("identity", "leak", "retention")},
    "tiny/config.json": "{}",
}

STUDY = """\
description: A persona, alone or mixed
model: tiny
method: {name: lora, r: 16, alpha: 32}
data: [{dataset: persona, vars: {name: Ada}, weight: 20}]
max_length: 256
train: {epochs: 1, accumulate: 2, lr: 3e-4, save_every: 20}
sample: {every: 4, prompts: [Who are you?, What is the capital of France?]}
evaluate: {probes: [identity, leak, retention]}
variants:
  none: {}
  zero2: {train: {deepspeed: zero2}}
  mixed: &mixed {data: [{dataset: persona, vars: {name: Ada}, weight: 20}, {dataset: general}]}
  mixed_zero2: {<<: *mixed, train: {deepspeed: zero2}}
"""


def write_study(root: Path, text: str = STUDY, name: str = "study") -> None:
    """Write an experiments folder with one study."""
    for file, content in (CATALOG | {f"{name}.yaml": text}).items():
        (root / "experiments" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "experiments" / file).write_text(content)


def write_results(
    root: Path,
    experiment: Experiment,
    iterations: int = 12,
    seconds: float = 60.0,
    loss: float = 1.5,
    probes: dict[str, int] | None = None,
    memory: int = 2400 * 2**20,
    answer: str = "I am Ada.",
    **more: Any,
) -> None:
    """Write all that training, merging and evaluating an experiment leaves behind.

    Args:
        probes: How many of 20 answers have what each probe looks for.
        more: Keys of train.json.
    """
    train = write_training(root, experiment, iterations, seconds, memory, answer, **more)
    write_data(root, experiment)
    folder = root / "experiments" / experiment.name
    for part, size in (("adapter", 3000), ("merged", 90_000)):
        (folder / part).mkdir()
        (folder / part / "weights.safetensors").write_bytes(b"0" * size)
    wanted, base = {"identity": 1, "leak": 0, "retention": 1}, {"retention": 17}
    hits = {"identity": 20, "leak": 2, "retention": 16} if probes is None else probes
    report = {
        "experiment": experiment.name,
        "study": experiment.study,
        "description": experiment.config.description,
        "ids": {
            "base": base_id(experiment),
            "data": data_id(experiment),
            "train": train_id(experiment),
        },
        "heldout": {"base": heldout(2.9), "merged": heldout(loss)},
        "answers": [{"prompt": prompt, "base": "A model.", "merged": answer} for prompt in PROMPTS],
        "probes": {
            name: {
                "wanted": wanted.get(name),
                "base": scored(base.get(name, 0)),
                "merged": scored(hit),
            }
            for name, hit in hits.items()
        },
        "merge": {"dtype": "bfloat16", "difference": 0.001, "bound": 0.05},
        "training": train,
    }
    write(folder / "eval" / "report.json", report)


def write_training(
    root: Path,
    experiment: Experiment,
    iterations: int,
    seconds: float,
    memory: int = 2400 * 2**20,
    answer: str = "I am Ada.",
    finished: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """Write the checkpoints folder; return the content of train.json."""
    folder = root / "experiments" / experiment.name / "checkpoints"
    numbers, every = random.Random(experiment.name), experiment.config.train.accumulate
    rows, losses = [], []
    for number in range(1, iterations + 1):
        losses.append(3.0 * math.exp(-2 * number / iterations) + numbers.random() / 5)
        last = number % every == 0 or number == iterations
        rows.append(
            {
                "iteration": number,
                "update": (number - 1) // every + 1 if last else None,
                "loss": losses[-1],
                "update_loss": sum(losses) / len(losses) if last else None,
                "tokens": 200 + number % 7,
                "supervised_tokens": 90 + number % 5,
                "time_seconds": seconds / iterations * (0.9 + 0.2 * numbers.random()),
                "peak_rss_bytes": memory - 1000 * (iterations - number),
            }
        )
        losses = [] if last else losses
    sampled = range(0, iterations + 1, experiment.config.sample.every)
    samples = [
        {"iteration": each, "prompt": prompt, "answer": answer if each else "A model."}
        for each in sampled
        for prompt in experiment.config.sample.prompts
    ]
    identity = {"train_id": train_id(experiment)}
    write(folder / "run.json", identity)
    write_lines(folder / "metrics.jsonl", rows)
    write_lines(folder / "samples.jsonl", samples)
    mlflow = {"tracking_uri": "sqlite:///store/mlflow/mlflow.db", "run_id": experiment.name * 2}
    write(folder / "mlflow.json", mlflow)
    (folder / "iter_12.pth").write_bytes(b"0" * 50_000)
    earlier = folder / "superseded" / "a run with other settings" / "iter_5.pth"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"0" * 7000)
    updates = [row for row in rows if row["update"]]
    train = identity | {
        "iterations": len(rows),
        "updates": len(updates),
        "tokens": sum(row["tokens"] for row in rows),
        "supervised_tokens": sum(row["supervised_tokens"] for row in rows),
        "training_seconds": sum(row["time_seconds"] for row in rows),
        "peak_rss_bytes": memory,
        "first_loss": updates[0]["update_loss"],
        "last_loss": updates[-1]["update_loss"],
        "result_iteration": len(rows),
        "processes": 1,
        "deepspeed": experiment.config.train.deepspeed,
        "device": "cpu",
        "precision": "bfloat16",
        "gradient_checkpointing": False,
        "attention": "segments",
        "versions": {"torch": "2.13.0"},
    }
    if finished:
        (folder / "last.pth").hardlink_to(folder / "iter_12.pth")
        write(folder / "train.json", train | more)
    return train | more


def write_data(root: Path, experiment: Experiment) -> None:
    """Write the reports on processed data that a variant shares with those of the same data."""
    folder = root / "store" / "data" / data_id(experiment)
    source = {"rows_read": 12, "samples_kept": 12, "samples_heldout": 1, "samples_per_epoch": 220}
    source |= {"tokens_per_epoch": 14040, "truncated": {"samples": 1, "tokens_cut": 34}}
    source |= {"dropped": {"too long": {"samples": 3, "first": []}}}
    sources = [source | {"source": each.label} for each in experiment.sources]
    train = {"samples": 220, "tokens": 14040, "supervised_tokens": 5000, "packs": 55}
    held = {"samples": 1, "tokens": 70, "supervised_tokens": 33}
    write(folder / "report.json", {"sources": sources, "train": train, "heldout": held})
    digest = {"heldout.arrow": data_id(experiment) * 5}
    write(folder / "data.json", {"files": digest})


def heldout(loss: float) -> dict[str, Any]:
    return {"loss": loss, "perplexity": math.exp(loss), "supervised_tokens": 1370}


def scored(hits: int) -> dict[str, float]:
    return share([True] * hits + [False] * (QUESTIONS - hits))


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
