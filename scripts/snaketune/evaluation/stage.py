"""The evaluation stage: base and merged model answer the same prompts and rows."""

import logging
from pathlib import Path
from typing import Any

from snaketune.errors import UserError
from snaketune.evaluation.measure import Tasks, figures, measure
from snaketune.evaluation.probes import judge
from snaketune.evaluation.report import html
from snaketune.experiment.resolved import Resolved, to_yaml
from snaketune.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from snaketune.models.load import (
    choose_precision,
    device,
    load_model,
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
        checkpoints: The training's folder, for its figures, curves and samples.
        output: experiments/X/eval.
        probes: The folder with the questions of the probes.
    """
    template = read_json(data / "data.json")["template"]
    _require_same_template(merged, template)
    tokenizer = load_tokenizer(merged, template["text"])
    tasks = Tasks.of(experiment, data, probes, tokenizer, template)
    dtype, reason = choose_precision(experiment.config.train.precision)
    measured = {}
    with told_when_out_of_memory("free memory held by other programs, then run again."):
        for name, folder in (("base", base), ("merged", merged)):
            log.info("evaluating %s in %s (%s)", folder, dtype, reason)
            model = load_model(folder, dtype, device())
            measured[name] = measure(model, tokenizer, tasks, name)
    probed = judge(tasks.probes, {name: found["probes"] for name, found in measured.items()})
    report = {
        "experiment": experiment.name,
        "study": experiment.study,
        "description": experiment.config.description,
        "ids": {"base": base.name, "data": experiment.data_id, "train": experiment.train_id},
        "merge": read_json(merged / "snaketune.json")["merge"],
        "training": read_json(checkpoints / "train.json"),
    } | figures(tasks, measured, probed)
    write_jsonl(output / "probes.jsonl", probed)
    write_json(output / "report.json", report)
    metrics = read_jsonl(checkpoints / "metrics.jsonl")
    samples = read_jsonl(checkpoints / "samples.jsonl")
    page = html(report, metrics, samples, probed, to_yaml(experiment.values))
    write_text(output / "report.html", page)


def _require_same_template(merged: Path, template: dict[str, Any]) -> None:
    trained = read_json(merged / "snaketune.json")["template"]
    if trained["sha256"] != template["sha256"]:
        raise UserError(
            f"{merged} was trained with chat template '{trained['name']}' "
            f"({trained['sha256'][:12]}), the data now uses '{template['name']}' "
            f"({template['sha256'][:12]}).\n  Fix: rebuild it with snakemake {merged}"
        )
