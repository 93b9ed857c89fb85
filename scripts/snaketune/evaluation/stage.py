"""The evaluation stage: base, checkpoints and merged model answer the same prompts and rows."""

import logging
from pathlib import Path
from typing import Any

from snaketune.data.storage import Packs
from snaketune.errors import UserError
from snaketune.evaluation.models import columns, measure_each
from snaketune.evaluation.overfitting import verdict
from snaketune.evaluation.probes import Question, ask, judge, read_probes, summary
from snaketune.evaluation.report import html
from snaketune.experiment.resolved import Resolved, to_yaml
from snaketune.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from snaketune.models.comparison import heldout_loss
from snaketune.models.generation import answer
from snaketune.models.load import (
    choose_precision,
    device,
    load_tokenizer,
    told_when_out_of_memory,
)

log = logging.getLogger(__name__)


def evaluate(
    experiment: Resolved,
    base: Path,
    merged: Path,
    data: Path,
    checkpoints: Path,
    output: Path,
    probes: Path,
) -> None:
    """Write report.json, probes.jsonl and report.html.

    Args:
        base: The base model's folder.
        merged: The merged model's folder.
        data: The processed data's folder.
        checkpoints: The training's folder, for its checkpoints, figures, curves and samples.
        output: experiments/X/eval.
        probes: The folder with the questions of the probes.
    """
    config = experiment.config.evaluate
    asked = read_probes(probes, config.probes, experiment.persona)
    template = read_json(data / "data.json")["template"]
    about = read_json(merged / "snaketune.json")
    _require_same_template(merged, about["template"], template)
    tokenizer = load_tokenizer(base, template["text"])
    heldout = Packs(data / "heldout.arrow")
    dtype, reason = choose_precision(experiment.config.train.precision)

    def measure(name: str, model: Any) -> dict[str, Any]:
        log.info("evaluating %s in %s (%s)", name, dtype, reason)
        return _measure(model, tokenizer, experiment, template, heldout, asked)

    with told_when_out_of_memory("free memory held by other programs, then run again."):
        kept = checkpoints if config.checkpoints else None
        measured = measure_each(base, merged, about, kept, dtype, measure)
    probed = judge(asked, {name: found["probes"] for name, found in measured.items()})
    report = _report(experiment, base, checkpoints, about, measured)
    report["probes"] = summary(asked, probed)
    validated = read_jsonl(checkpoints / "validation.jsonl")
    report["checkpoints"] = verdict(report, validated)
    write_jsonl(output / "probes.jsonl", probed)
    write_json(output / "report.json", report)
    metrics = read_jsonl(checkpoints / "metrics.jsonl")
    samples = read_jsonl(checkpoints / "samples.jsonl")
    page = html(report, metrics, samples, validated, probed, to_yaml(experiment.values))
    write_text(output / "report.html", page)


def _measure(
    model: Any,
    tokenizer: Any,
    experiment: Resolved,
    template: dict[str, Any],
    heldout: Packs,
    probes: dict[str, list[Question]],
) -> dict[str, Any]:
    limit = experiment.config.evaluate.max_new_tokens
    return {
        "heldout": heldout_loss(model, heldout, device()),
        "answers": answer(model, tokenizer, experiment.prompts, limit, template),
        "probes": {
            name: ask(model, tokenizer, questions, template) for name, questions in probes.items()
        },
    }


def _report(
    experiment: Resolved,
    base: Path,
    checkpoints: Path,
    about: dict[str, Any],
    measured: dict[str, Any],
) -> dict[str, Any]:
    """Return report.json but for what is concluded from the answers."""
    return {
        "experiment": experiment.name,
        "study": experiment.study,
        "description": experiment.config.description,
        "ids": {"base": base.name, "data": experiment.data_id, "train": experiment.train_id},
        "models": columns(measured, about["iteration"]),
        "heldout": {name: found["heldout"] for name, found in measured.items()},
        "answers": [
            {"prompt": prompt} | {name: found["answers"][index] for name, found in measured.items()}
            for index, prompt in enumerate(experiment.prompts)
        ],
        "merge": about["merge"],
        "training": read_json(checkpoints / "train.json"),
    }


def _require_same_template(merged: Path, trained: dict[str, Any], template: dict[str, Any]) -> None:
    if trained["sha256"] != template["sha256"]:
        raise UserError(
            f"{merged} was trained with chat template '{trained['name']}' "
            f"({trained['sha256'][:12]}), the data now uses '{template['name']}' "
            f"({template['sha256'][:12]}).\n  Fix: rebuild it with snakemake {merged}"
        )
