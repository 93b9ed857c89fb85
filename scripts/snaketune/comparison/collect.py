"""What one variant has left on disk, read without trusting that it is all there.

Figures are only taken from files of the settings that the study has now; what is missing, failed,
old or unreadable becomes the variant's state, with what to type.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.files import Busy, locked, read_json, read_jsonl
from snaketune.experiment import Experiment, data_id, train_id
from snaketune.experiment.identity import base_id
from snaketune.experiment.settings import Settings, settings

Row = dict[str, Any]

TRAINING = (
    *("iterations", "updates", "tokens", "supervised_tokens", "training_seconds"),
    *("first_loss", "last_loss", "result_iteration"),
    *("peak_rss_bytes", "peak_allocated_bytes", "peak_reserved_bytes"),
)
"""Figures of train.json; a converted checkpoint and a CPU lack some."""

CHOSEN = ("device", "precision", "processes", "gradient_checkpointing", "attention")
"""What the machine decides where a setting leaves it open, as train.json tells it."""

PARTS = ("checkpoints", "adapter", "merged")

_SLOW = 1.3
"""So many times the speed of the whole run is a middle iteration's, if the run was disturbed."""

_ERRORS = ("Error:", "Unexpected ", "Stopped")
"""How a program's last words begin, as snaketune.core.cli writes them into its log."""


@dataclass
class Collected:
    """One variant: its settings, its state and its figures. Figures that it has not are None.

    `told` says in words what the state means, `todo` what to type to get further.
    """

    name: str
    experiment: Experiment
    settings: Settings
    ids: dict[str, str]
    files: dict[str, str]
    state: str = "not built"
    told: str = ""
    todo: str = ""
    training: Row = field(default_factory=dict)
    chosen: Row = field(default_factory=dict)
    disk: dict[str, int] = field(default_factory=dict)
    heldout: Row = field(default_factory=dict)
    probes: dict[str, Row] = field(default_factory=dict)
    answers: list[Row] = field(default_factory=list)
    samples: list[Row] = field(default_factory=list)
    updates: list[Row] = field(default_factory=list)
    pace: Row = field(default_factory=dict)
    validation: list[Row] = field(default_factory=list)
    data: Row = field(default_factory=dict)
    heldout_sha256: str = ""
    mlflow: Row = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether it is trained and evaluated with the settings the study has now."""
        return self.state == "complete"

    @property
    def disturbed(self) -> bool:
        """Whether its training was slow in parts: something else used the machine meanwhile."""
        pace = self.pace
        return bool(pace) and pace["median_tokens_per_second"] > _SLOW * pace["tokens_per_second"]


def collect(experiment: Experiment) -> Collected:
    """Read all there is of an experiment, below experiments/, store/ and logs/."""
    name = experiment.variant or experiment.study
    ids = {"base": base_id(experiment), "data": data_id(experiment), "train": train_id(experiment)}
    found = Collected(name, experiment, settings(experiment), ids, _files(experiment, ids))
    wrong = [problem for file, read in _READERS.items() if (problem := _safely(read, found, file))]
    found.disk = _disk(found)
    _judge_state(found, wrong)
    return found


def _files(experiment: Experiment, ids: dict[str, str]) -> dict[str, str]:
    folder, data = f"experiments/{experiment.name}", f"store/data/{ids['data']}"
    checkpoints = f"{folder}/checkpoints"
    return {
        "run": f"{checkpoints}/run.json",
        "training": f"{checkpoints}/train.json",
        "metrics": f"{checkpoints}/metrics.jsonl",
        "samples": f"{checkpoints}/samples.jsonl",
        "validation": f"{checkpoints}/validation.jsonl",
        "mlflow": f"{checkpoints}/mlflow.json",
        "evaluation": f"{folder}/eval/report.json",
        "data": f"{data}/report.json",
        "data_digests": f"{data}/data.json",
    }


def _safely(read: Callable[[Collected], None], found: Collected, file: str) -> str:
    """Call a reader; return what was wrong with its file, empty if nothing was."""
    try:
        read(found)
    except UserError as error:
        return f"{error}"
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        return (
            f"{found.files[file]}, or a file beside it, is not what its stage writes "
            f"({type(error).__name__}: {error}).\n  Fix: delete it and rebuild."
        )
    return ""


def _read(found: Collected, file: str) -> Any:
    """Return a JSON file's content, None if it is not there."""
    path = Path(found.files[file])
    return read_json(path) if path.exists() else None


def _read_run(found: Collected) -> None:
    """Read what a run writes while it trains, if it is a run of these settings."""
    run = _read(found, "run")
    if run is None or run["train_id"] != found.ids["train"]:
        return
    metrics = read_jsonl(Path(found.files["metrics"]))
    found.updates, found.pace = _updates(metrics), _pace(metrics[1:])
    rows = read_jsonl(Path(found.files["samples"]))
    found.samples = [{key: row[key] for key in ("iteration", "prompt", "answer")} for row in rows]
    found.validation = [
        {"iteration": row["iteration"], "heldout_loss": float(row["heldout_loss"])}
        for row in read_jsonl(Path(found.files["validation"]))
    ]
    noted = _read(found, "mlflow") or {}
    found.mlflow = {key: noted[key] for key in ("tracking_uri", "run_id") if key in noted}


def _pace(metrics: list[Row]) -> Row:
    """Return the speed of some iterations, and of the middle one of them, in tokens/s.

    The first iteration of a run is none of them: it also prepares kernels.
    """
    rates = [row["tokens"] / row["time_seconds"] for row in metrics]
    if not rates:
        return {}
    seconds = sum(row["time_seconds"] for row in metrics)
    whole = sum(row["tokens"] for row in metrics) / seconds
    return {"tokens_per_second": whole, "median_tokens_per_second": statistics.median(rates)}


def _updates(metrics: list[Row]) -> list[Row]:
    """Return each update's loss, with the tokens and seconds of training up to it."""
    updates, tokens, seconds = [], 0, 0.0
    for row in metrics:
        tokens, seconds = tokens + row["tokens"], seconds + row["time_seconds"]
        if row["update"]:
            place = {"iteration": row["iteration"], "tokens": tokens, "seconds": seconds}
            updates.append(place | {"loss": float(row["update_loss"])})
    return updates


def _read_training(found: Collected) -> None:
    told = _read(found, "training")
    if told is None or told["train_id"] != found.ids["train"]:
        return
    found.training = {key: told[key] for key in TRAINING if told.get(key) is not None}
    found.chosen = {key: told[key] for key in CHOSEN if key in told}
    found.chosen |= {f"version of {name}": each for name, each in told["versions"].items()}
    seconds = told.get("training_seconds")
    if seconds:
        for key in ("tokens", "supervised_tokens"):
            found.training[f"{key}_per_second"] = told[key] / seconds


def _read_evaluation(found: Collected) -> None:
    report = _read(found, "evaluation")
    if report is None or report["ids"]["train"] != found.ids["train"]:
        return
    probes = {name: _probe(told) for name, told in report["probes"].items()}
    answers = [
        {"prompt": row["prompt"], "base": row["base"], "merged": row["merged"]}
        for row in report["answers"]
    ]
    heldout = {
        model: {key: report["heldout"][model][key] for key in _HELDOUT}
        for model in ("base", "merged")
    }
    found.probes, found.answers, found.heldout = probes, answers, heldout


_HELDOUT = ("loss", "perplexity", "supervised_tokens")


def _probe(told: Row) -> Row:
    kept = ("value", "low", "high", "n")
    models = {model: {key: float(told[model][key]) for key in kept} for model in ("base", "merged")}
    return {"wanted": told["wanted"]} | models


def _read_data(found: Collected) -> None:
    report, digests = _read(found, "data"), _read(found, "data_digests")
    if report is not None:
        found.data = {
            "sources": [_data_source(source) for source in report["sources"]],
            "train": {key: report["train"][key] for key in ("samples", "packs", *_TOKENS)},
            "heldout": {key: report["heldout"][key] for key in ("samples", *_TOKENS)},
        }
    if digests is not None:
        found.heldout_sha256 = digests["files"]["heldout.arrow"]


_TOKENS = ("tokens", "supervised_tokens")


_READERS = {
    "metrics": _read_run,
    "training": _read_training,
    "evaluation": _read_evaluation,
    "data": _read_data,
}


def _data_source(source: Row) -> Row:
    kept = ("source", "rows_read", "samples_kept", "samples_heldout", "samples_per_epoch")
    dropped = [
        count["samples"] if isinstance(count, dict) else count
        for count in source["dropped"].values()
    ]
    return {key: source[key] for key in kept} | {
        "tokens_per_epoch": source["tokens_per_epoch"],
        "dropped": sum(dropped),
        "truncated": source["truncated"]["samples"],
        "tokens_cut": source["truncated"]["tokens_cut"],
    }


def _disk(found: Collected) -> dict[str, int]:
    """Return the bytes of each part of these settings; a file with two names counts once."""
    folder, sizes = Path("experiments") / found.experiment.name, {}
    known = {"checkpoints": found.training, "adapter": found.heldout, "merged": found.heldout}
    for part in filter(known.get, PARTS):
        files = [file for file in (folder / part).rglob("*") if file.is_file()]
        own = [file for file in files if "superseded" not in file.relative_to(folder).parts]
        unique = {(stat.st_dev, stat.st_ino): stat.st_size for stat in map(Path.stat, own)}
        if unique:
            sizes[f"{part}_bytes"] = sum(unique.values())
    return sizes


def _judge_state(found: Collected, wrong: list[str]) -> None:
    target = found.files["evaluation"]
    found.todo = f"snakemake {target}"
    if wrong:
        found.state, found.told = "unreadable", "\n".join(wrong)
    elif found.training and found.heldout:
        found.state, found.todo = "complete", ""
    elif found.experiment.missing:
        found.state = "cannot be built"
        found.told = "\n".join(map(str, found.experiment.missing))
        found.todo = f"get the file, then: snakemake {target}"
    else:
        found.state, found.told = _unfinished(found)


def _unfinished(found: Collected) -> tuple[str, str]:
    """Return the state of a variant that is not complete, and what it means."""
    name, files = found.experiment.name, found.files
    logs = Path("logs")
    before = [
        (logs / f"models/{found.ids['base']}.log", f"store/models/{found.ids['base']}", "base"),
        (logs / f"data/{found.ids['data']}.log", files["data_digests"], "data"),
    ]
    for log, made, stage in before:
        if not Path(made).exists() and (said := _last_words(log)):
            return "failed", f"{stage}: {said}"
    if not found.training:
        return _untrained(found)
    for stage, made in (("export_adapter", "adapter"), ("merge", "merged"), ("evaluate", "eval")):
        made_here = Path("experiments") / name / made
        absent = not made_here.exists() or made == "eval"
        if absent and (said := _last_words(logs / name / f"{stage}.log")):
            return "failed", f"trained; {stage}: {said}"
    if Path(files["evaluation"]).exists():
        return "old", "trained, but its evaluation is of a model with other settings"
    return "not evaluated", "trained, but not evaluated"


def _untrained(found: Collected) -> tuple[str, str]:
    files, name = found.files, found.experiment.name
    run, reached = _read(found, "run"), found.updates[-1]["iteration"] if found.updates else 0
    if run is None:
        said = _last_words(Path("logs") / name / "train.log")
        return ("failed", f"training: {said}") if said else ("not built", "nothing is trained yet")
    if run["train_id"] != found.ids["train"]:
        return "old", (
            f"what is there was trained with other settings (train_id {run['train_id']}, "
            f"now {found.ids['train']}), so none of its figures are shown"
        )
    if _is_busy(Path(files["run"]).parent):
        return "training", f"at iteration {reached}"
    said = _last_words(Path("logs") / name / "train.log")
    if said and not said.startswith("Stopped"):
        return "failed", f"training, at iteration {reached}: {said}"
    return "interrupted", said or f"training stopped at iteration {reached}"


def _is_busy(folder: Path) -> bool:
    try:
        with locked(folder, seconds=0):
            return False
    except Busy:
        return True
    except UserError:  # a folder that is only to be read
        return False


def _last_words(log: Path) -> str:
    """Return the error that the last attempt ended with, as its log tells it."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    starts = [number for number, line in enumerate(lines) if line.startswith(_ERRORS)]
    return "\n".join(lines[starts[-1] :])[:1000].removeprefix("Error: ") if starts else ""


def to_json(found: Collected) -> Row:
    """Return a variant as report.json tells it; its curves are in the files it names."""
    return {
        "experiment": found.experiment.name,
        "state": found.state,
        "told": found.told,
        "todo": found.todo,
        "ids": found.ids,
        "training": found.training,
        "pace": found.pace | {"disturbed": found.disturbed},
        "chosen": found.chosen,
        "disk": found.disk,
        "heldout": found.heldout,
        "probes": found.probes,
        "answers": found.answers,
        "data": found.data,
        "files": {kind: file for kind, file in found.files.items() if Path(file).exists()},
        "mlflow": found.mlflow,
    }
