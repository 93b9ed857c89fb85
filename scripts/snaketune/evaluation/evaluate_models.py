"""The evaluation stage: base, checkpoints and merged model answer the same prompts and rows."""

import logging
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from snaketune.evaluation.evaluated_models import columns, measure_each
from snaketune.evaluation.evaluation_report import html
from snaketune.evaluation.measure import Tasks, figures, measure
from snaketune.evaluation.overfitting import verdict
from snaketune.evaluation.probes import judge
from snaketune.experiment.resolved import Resolved, to_yaml
from snaketune.export.model_record import ModelRecord
from snaketune.models.load import (
    choose_precision,
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
    template = read_json(data / "data.json")["template"]
    record = ModelRecord.of(merged)
    _require_same_template(merged, record.template, template)
    tokenizer = load_tokenizer(merged, template["text"])
    tasks = Tasks.of(experiment, data, probes, tokenizer, template)
    dtype, reason = choose_precision(experiment.config.train.precision)

    def measured_by(name: str, model: Any) -> dict[str, Any]:
        log.info("evaluating %s in %s (%s)", name, dtype, reason)
        return measure(model, tokenizer, tasks, name)

    with told_when_out_of_memory("free memory held by other programs, then run again."):
        kept = checkpoints if experiment.config.evaluate.checkpoints else None
        measured = measure_each(base, merged, record, kept, dtype, measured_by)
    probed = judge(tasks.probes, {name: found["probes"] for name, found in measured.items()})
    report = {
        "experiment": experiment.name,
        "study": experiment.study,
        "description": experiment.config.description,
        "ids": {"base": base.name, "data": experiment.data_id, "train": experiment.train_id},
        "models": columns(measured, record.iteration),
        "merge": record.merge.model_dump(mode="json") if record.merge else None,
        "training": read_json(checkpoints / "train.json"),
    } | figures(tasks, measured, probed)
    validated = read_jsonl(checkpoints / "validation.jsonl")
    report["checkpoints"] = verdict(report, validated)
    write_jsonl(output / "probes.jsonl", probed)
    write_json(output / "report.json", report)
    metrics = read_jsonl(checkpoints / "metrics.jsonl")
    samples = read_jsonl(checkpoints / "samples.jsonl")
    page = html(report, metrics, samples, validated, probed, to_yaml(experiment.values))
    write_text(output / "report.html", page)


def _require_same_template(merged: Path, trained: dict[str, Any], template: dict[str, Any]) -> None:
    if trained["sha256"] != template["sha256"]:
        raise UserError(
            f"{merged} was trained with chat template '{trained['name']}' "
            f"({trained['sha256'][:12]}), the data now uses '{template['name']}' "
            f"({template['sha256'][:12]}).\n  Fix: rebuild it with snakemake {merged}"
        )
