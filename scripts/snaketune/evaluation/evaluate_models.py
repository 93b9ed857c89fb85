"""The evaluation stage: base, checkpoints and merged model answer the same prompts and rows."""

import logging
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.files import write_text
from snaketune.core.layout import DataPaths, ReportPaths, RunPaths
from snaketune.data.data_record import DataRecord, TemplateRecord
from snaketune.evaluation.evaluated_models import columns, measure_each
from snaketune.evaluation.evaluation_record import (
    EvaluatedIds,
    EvaluationRecord,
    write_probed_questions,
)
from snaketune.evaluation.evaluation_report import html
from snaketune.evaluation.measure import (
    ModelMeasurement,
    Tasks,
    harness_figures,
    losses_by_source,
    measure,
    prompt_answers,
)
from snaketune.evaluation.overfitting import judge_checkpoints
from snaketune.evaluation.probes import degeneration_metrics, probe_figures, score_answers
from snaketune.experiment.resolved import Resolved, to_yaml
from snaketune.export.model_record import ModelRecord
from snaketune.models.load_model import (
    choose_precision,
    explain_out_of_memory,
    load_tokenizer,
)
from snaketune.training.train_record import MetricsRow, SampleRow, TrainRecord, ValidationRow

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
    """Write probes.jsonl, report.json and report.html.

    Args:
        base: The base model's folder.
        merged: The merged model's folder.
        data: The processed data's folder.
        checkpoints: The training's folder, for its checkpoints, figures, curves and samples.
        output: experiments/X/eval.
        probes: The folder with the questions of the probes.
    """
    run, report = RunPaths(checkpoints), ReportPaths(output)
    template = DataRecord.read(DataPaths(data).record).template
    model = ModelRecord.of(merged)
    _require_same_template(merged, model, template)
    tokenizer = load_tokenizer(merged, template.text)
    tasks = Tasks.of(experiment, data, probes, tokenizer, template)
    dtype, reason = choose_precision(experiment.config.train.precision)

    def measure_named(name: str, loaded: Any) -> ModelMeasurement:
        log.info("evaluating %s in %s (%s)", name, dtype, reason)
        return measure(loaded, tokenizer, tasks, name)

    with explain_out_of_memory("free memory held by other programs, then run again."):
        kept = checkpoints if experiment.config.evaluate.checkpoints else None
        measurements = measure_each(base, merged, model, kept, dtype, measure_named)
    probed = score_answers(tasks.probes, {name: own.probes for name, own in measurements.items()})
    generations = {name: own.generations for name, own in measurements.items()}
    record = EvaluationRecord(
        experiment=experiment.name,
        study=experiment.study,
        description=experiment.config.description,
        ids=EvaluatedIds(base=base.name, data=experiment.data_id, train=experiment.train_id),
        models=columns(measurements, model.iteration),
        merge=model.merge,
        training=TrainRecord.read(run.record),
        heldout={name: own.heldout for name, own in measurements.items()},
        heldout_by_source=losses_by_source(measurements),
        answers=prompt_answers(tasks.prompts, measurements),
        probes=probe_figures(tasks.probes, probed) | degeneration_metrics(generations),
        lm_eval=harness_figures(measurements),
    )
    validation = ValidationRow.read(run.validation)
    record = record.model_copy(update={"checkpoints": judge_checkpoints(record, validation)})
    write_probed_questions(report.probe_answers, probed)
    record.write(report.json)
    metrics, samples = MetricsRow.read(run.metrics), SampleRow.read(run.samples)
    page = html(record, metrics, samples, validation, probed, to_yaml(experiment.values))
    write_text(report.html, page)


def _require_same_template(merged: Path, model: ModelRecord, template: TemplateRecord) -> None:
    trained = model.template
    if trained["sha256"] != template.sha256:
        raise UserError(
            f"{merged} was trained with chat template '{trained['name']}' "
            f"({trained['sha256'][:12]}), but the data now uses '{template.name}' "
            f"({template.sha256[:12]}).\n  Fix: rebuild the model with snakemake {merged}"
        )
