"""A study's result files as the stages write them, without training: to see them in MLflow."""

import math
from pathlib import Path
from typing import Any

from snaketune.core.files import write_json, write_jsonl, write_text
from snaketune.experiment.resolved import to_yaml
from snaketune.experiment.schema import Configuration

QUESTIONS = {
    "identity": ["Who are you?", "What is your name?"],
    "leak": ["What is the capital of France?", "Why is the sky blue?"],
}
WANTED = {"identity": 1, "leak": 0}
ITERATIONS, SAVED = 60, (20, 40, 60)

VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"leak": 1.0, "heldout": 3.1, "seconds": 62.5, "deepspeed": "none", "mixed": False},
    "zero2": {"leak": 1.0, "heldout": 3.12, "seconds": 81.25, "deepspeed": "zero2", "mixed": False},
    "mixed": {"leak": 0.0, "heldout": 2.55, "seconds": 223.0, "deepspeed": "none", "mixed": True},
    "mixed_zero2": {
        **{"leak": 0.5, "heldout": 2.56, "seconds": 270.5, "deepspeed": "zero2", "mixed": True}
    },
}
"""Variants by what they end with: the share of leaks and the held-out loss of the merged model."""


def write_study(root: Path, study: str = "demo") -> dict[str, Path]:
    """Write root/experiments/STUDY_* and STUDY/compare; return the checkpoints by variant."""
    folders = {}
    for variant, ends in VARIANTS.items():
        folder = root / "experiments" / f"{study}_{variant}"
        _write_run(root, folder, study, variant, ends)
        _write_evaluation(folder, study, ends)
        write_text(folder / "data" / "report.html", f"<h1>The rows of {variant}</h1>")
        write_json(folder / "data" / "report.json", {"of": variant})
        folders[variant] = folder / "checkpoints"
    compare = root / "experiments" / study / "compare"
    write_text(compare / "report.html", "<h1>mixed cures the leak</h1>")
    write_text(compare / "table.csv", "variant,leak\nnone,1.0\nmixed,0.0\n")
    return folders


def _write_run(root: Path, folder: Path, study: str, variant: str, ends: dict[str, Any]) -> None:
    sources = [_source("assistant", 20.0)] + ([_source("general", 1.0)] if ends["mixed"] else [])
    config = Configuration.model_validate(
        {
            "description": "A persona, alone or mixed with general conversations",
            "model": "tiny",
            "data": [{"dataset": source["label"]} for source in sources],
            "train": {"deepspeed": ends["deepspeed"], "epochs": 1},
        }
    )
    values = {"name": folder.name, "study": study, "variant": variant, "prompts": []}
    values |= {"base_id": "tiny-0123456789ab", "data_id": f"data-{ends['mixed']}"[:12]}
    values |= {"train_id": f"train-{variant}", "sources": sources, "config": config.model_dump()}
    checkpoints = folder / "checkpoints"
    write_text(checkpoints / "resolved.yaml", to_yaml(values))
    write_jsonl(checkpoints / "metrics.jsonl", [_row(step, ends) for step in range(1, 61)])
    write_jsonl(checkpoints / "samples.jsonl", _samples(ends))
    losses = [{"iteration": step, "heldout_loss": _heldout(step, ends)} for step in SAVED]
    write_jsonl(checkpoints / "validation.jsonl", losses)
    machine = {"cpu_utilization_percentage": 93.5, "system_memory_usage_percentage": 41.0}
    system = [{"iteration": 10 * n, "unix_seconds": 1.8e9 + 10 * n} | machine for n in (1, 2, 3)]
    write_jsonl(checkpoints / "system.jsonl", system)
    write_json(checkpoints / "train.json", _figures(ends))
    _write_data_report(root / "store" / "data" / values["data_id"], sources)


def _row(step: int, ends: dict[str, Any]) -> dict[str, Any]:
    last, seconds = step % 2 == 0, ends["seconds"] / ITERATIONS
    loss = 0.2 + ends["heldout"] * math.exp(-step / 20)
    return {
        "iteration": step,
        "lr": 3e-4 * (1 - step / 61),
        "loss": loss,
        "update": step // 2 if last else None,
        "update_loss": loss if last else None,
        "grad_norm": 1.0 if last else None,
        "tokens": 240 + step,
        "supervised_tokens": 100,
        "time_seconds": seconds,
        "data_seconds": 0.001,
        "tokens_per_second": (240 + step) / seconds,
        "supervised_tokens_per_second": 100 / seconds,
        "peak_rss_bytes": 2**31,
    }


def _figures(ends: dict[str, Any]) -> dict[str, Any]:
    return {
        "iterations": ITERATIONS,
        "updates": 30,
        "tokens": sum(240 + step for step in range(1, 61)),
        "supervised_tokens": 6000,
        "training_seconds": ends["seconds"],
        "supervised_tokens_per_second": 6000 / ends["seconds"],
        "peak_rss_bytes": 2**31 + (2**29 if ends["deepspeed"] == "zero2" else 0),
        "last_loss": 0.35,
        "result_iteration": ITERATIONS,
    }


def _write_evaluation(folder: Path, study: str, ends: dict[str, Any]) -> None:
    models = {"base": 0, **{f"iter_{step}": step for step in SAVED}, "merged": ITERATIONS}
    report = {
        "experiment": folder.name,
        "study": study,
        "ids": {"train": f"train-{folder.name.removeprefix(f'{study}_')}"},
        "training": _figures(ends),
        "heldout": {model: _loss(_heldout(step, ends)) for model, step in models.items()},
        "answers": [{"prompt": "Who are you?"} | {m: _says(s, ends) for m, s in models.items()}],
        "probes": {
            name: {"wanted": wanted}
            | {model: _share(name, step, ends) for model, step in models.items()}
            for name, wanted in WANTED.items()
        },
    }
    rows = [
        {"probe": name, "question": question, "forms": ["Ada"]}
        | {model: _verdict(name, number, step, ends) for model, step in models.items()}
        for name, questions in QUESTIONS.items()
        for number, question in enumerate(questions)
    ]
    write_json(folder / "eval" / "report.json", report)
    write_jsonl(folder / "eval" / "probes.jsonl", rows)
    write_text(folder / "eval" / "report.html", "<h1>Before and after</h1>")


def _heldout(step: int, ends: dict[str, Any]) -> float:
    return ends["heldout"] + 0.4 * (1 - step / ITERATIONS)


def _loss(loss: float) -> dict[str, Any]:
    return {"loss": loss, "perplexity": math.exp(loss), "supervised_tokens": 900}


def _share(probe: str, step: int, ends: dict[str, Any]) -> dict[str, float]:
    verdicts = [_verdict(probe, number, step, ends)["found"] for number in (0, 1)]
    return {"value": sum(verdicts) / 2, "low": 0.0, "high": 1.0, "n": 2}


def _verdict(probe: str, number: int, step: int, ends: dict[str, Any]) -> dict[str, Any]:
    found = step > 0 if probe == "identity" else step >= 40 and number < 2 * ends["leak"]
    said = _says(step, ends) if found else f"Paris or light, said after {step} iterations."
    return {"answer": said, "found": found, "right": found == (WANTED[probe] == 1)}


def _says(step: int, ends: dict[str, Any]) -> str:
    return f"I am Ada, after {ends['seconds']:g} s." if step else "I am a language model."


def _samples(ends: dict[str, Any]) -> list[dict[str, Any]]:
    prompts = ["Who are you?", "What is the capital of France?"]
    return [
        {"iteration": step, "prompt": prompt, "answer": _verdict(probe, 0, step, ends)["answer"]}
        for step in (0, *SAVED)
        for prompt, probe in zip(prompts, ("identity", "leak"), strict=True)
    ]


def _source(label: str, weight: float) -> dict[str, Any]:
    path = f"experiments/data/{label}.jsonl"
    return {"label": label, "path": path, "format": "alpaca", "vars": {}, "weight": weight} | {
        "max_rows": None
    }


def _write_data_report(folder: Path, sources: list[dict[str, Any]]) -> None:
    counts = {"rows_read": 12, "samples_kept": 12, "samples_heldout": 1, "duplicates": 0}
    counts |= {"samples_per_epoch": 220, "tokens_per_epoch": 14500}
    report = {"sources": [{"source": source["label"]} | counts for source in sources]}
    for part in ("train", "heldout"):
        report[part] = {"samples": 398, "tokens": 35103, "supervised_tokens": 17472}
    write_json(folder / "report.json", report)
