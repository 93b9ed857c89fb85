"""The evaluation stage: base and merged model answer the same prompts and rows."""

import logging
from pathlib import Path
from typing import Any

from snaketune.data.storage import Packs
from snaketune.errors import UserError
from snaketune.evaluation.probes import Question, ask, judge, read_probes, summary
from snaketune.evaluation.report import html
from snaketune.experiment.resolved import Resolved, to_yaml
from snaketune.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from snaketune.models.comparison import heldout_loss
from snaketune.models.generation import answer
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
    asked = read_probes(probes, experiment.config.evaluate.probes, experiment.persona)
    template = read_json(data / "data.json")["template"]
    _require_same_template(merged, template)
    heldout = Packs(data / "heldout.arrow")
    with told_when_out_of_memory("free memory held by other programs, then run again."):
        measured = {
            name: _measure(folder, experiment, template, heldout, asked)
            for name, folder in (("base", base), ("merged", merged))
        }
    probed = judge(asked, {name: found["probes"] for name, found in measured.items()})
    report = {
        "experiment": experiment.name,
        "study": experiment.study,
        "description": experiment.config.description,
        "ids": {"base": base.name, "data": experiment.data_id, "train": experiment.train_id},
        "heldout": {name: found["heldout"] for name, found in measured.items()},
        "answers": _answers(experiment, measured),
        "probes": summary(asked, probed),
        "merge": read_json(merged / "snaketune.json")["merge"],
        "training": read_json(checkpoints / "train.json"),
    }
    write_jsonl(output / "probes.jsonl", probed)
    write_json(output / "report.json", report)
    metrics = read_jsonl(checkpoints / "metrics.jsonl")
    samples = read_jsonl(checkpoints / "samples.jsonl")
    page = html(report, metrics, samples, probed, to_yaml(experiment.values))
    write_text(output / "report.html", page)


def _measure(
    folder: Path,
    experiment: Resolved,
    template: dict[str, Any],
    heldout: Packs,
    probes: dict[str, list[Question]],
) -> dict[str, Any]:
    dtype, reason = choose_precision(experiment.config.train.precision)
    log.info("evaluating %s in %s (%s)", folder, dtype, reason)
    model = load_model(folder, dtype, device())
    tokenizer = load_tokenizer(folder, template["text"])
    limit = experiment.config.evaluate.max_new_tokens
    return {
        "heldout": heldout_loss(model, heldout, device()),
        "answers": answer(model, tokenizer, experiment.prompts, limit, template),
        "probes": {
            name: ask(model, tokenizer, questions, template) for name, questions in probes.items()
        },
    }


def _answers(experiment: Resolved, measured: dict[str, Any]) -> list[dict[str, str]]:
    both = zip(
        experiment.prompts, measured["base"]["answers"], measured["merged"]["answers"], strict=True
    )
    return [{"prompt": prompt, "base": base, "merged": merged} for prompt, base, merged in both]


def _require_same_template(merged: Path, template: dict[str, Any]) -> None:
    trained = read_json(merged / "snaketune.json")["template"]
    if trained["sha256"] != template["sha256"]:
        raise UserError(
            f"{merged} was trained with chat template '{trained['name']}' "
            f"({trained['sha256'][:12]}), the data now uses '{template['name']}' "
            f"({template['sha256'][:12]}).\n  Fix: rebuild it with snakemake {merged}"
        )
