"""Everything that is measured on one model, and the same of all models side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from snaketune.data.data_record import TemplateRecord
from snaketune.evaluation.batched_answers import Generation, generate_answers
from snaketune.evaluation.evaluation_record import HarnessFigure, HeldoutLoss, PromptAnswers
from snaketune.evaluation.harness import Harness
from snaketune.evaluation.heldout import Heldout, heldout_losses
from snaketune.evaluation.probes import ProbeOutputs, read_probes, run_probe
from snaketune.experiment.probe_kinds import HELDOUT_ANSWERS, Scored
from snaketune.experiment.resolved import Resolved
from snaketune.models.generation import prompt_ids
from snaketune.models.load_model import device

T = TypeVar("T")


@dataclass(frozen=True)
class Tasks:
    """What every model is measured by.

    Attributes:
        max_new_tokens: The limit of answers to prompts and held-out rows.
    """

    prompts: Sequence[str]
    probes: Mapping[str, Scored]
    heldout: Heldout
    harness: Harness | None
    template: TemplateRecord
    max_new_tokens: int

    @staticmethod
    def of(
        experiment: Resolved, data: Path, probes: Path, tokenizer: Any, template: TemplateRecord
    ) -> "Tasks":
        """Read all tasks, so that a mistake in one is reported before any model is loaded.

        Args:
            data: The processed data's folder.
            probes: The folder with the questions of the probes.

        Raises:
            UserError: A probe's file has mistakes, or a task of lm_eval cannot be run.
        """
        config, heldout = experiment.config.evaluate, Heldout(data)
        tasks = read_probes(probes, config.probes, experiment.persona)
        if config.heldout_answers:
            ends = template.end_token_ids
            tasks[HELDOUT_ANSWERS] = heldout.questions(config.heldout_answers, tokenizer, ends)
        harness = Harness(experiment.lm_eval) if experiment.lm_eval else None
        limit = config.max_new_tokens
        return Tasks(experiment.prompts, tasks, heldout, harness, template, limit)


@dataclass(frozen=True)
class ModelMeasurement:
    """What was measured on one model; `lm_eval` is by task and metric."""

    heldout: HeldoutLoss
    heldout_by_source: dict[str, HeldoutLoss]
    answers: list[Generation]
    probes: dict[str, ProbeOutputs]
    lm_eval: dict[str, dict[str, HarnessFigure]]

    @property
    def generations(self) -> list[Generation]:
        """All generated answers, to prompts and to probes."""
        outputs = [*self.answers, *(output for probe in self.probes.values() for output in probe)]
        return [output for output in outputs if isinstance(output, Generation)]


def measure(model: Any, tokenizer: Any, tasks: Tasks, name: str) -> ModelMeasurement:
    """Measure one model; `name` is what progress lines call it."""
    template, limit = tasks.template, tasks.max_new_tokens
    loss, by_source = heldout_losses(model, tasks.heldout, device())
    prompts = prompt_ids(tokenizer, tasks.prompts, template.system)
    ends = template.end_token_ids
    return ModelMeasurement(
        heldout=loss,
        heldout_by_source=by_source,
        answers=generate_answers(model, tokenizer, prompts, limit, ends, f"{name}: prompts"),
        probes={
            probe: run_probe(model, tokenizer, questions, template, limit, f"{name}: {probe}")
            for probe, questions in tasks.probes.items()
        },
        lm_eval=tasks.harness.measure(model, tokenizer) if tasks.harness else {},
    )


def losses_by_source(
    measurements: Mapping[str, ModelMeasurement],
) -> dict[str, dict[str, HeldoutLoss]]:
    """Held-out losses by source and model."""
    return _transpose({model: own.heldout_by_source for model, own in measurements.items()})


def harness_figures(
    measurements: Mapping[str, ModelMeasurement],
) -> dict[str, dict[str, dict[str, HarnessFigure]]]:
    """Figures of lm-evaluation-harness by task, metric and model."""
    tasks = _transpose({model: own.lm_eval for model, own in measurements.items()})
    return {task: _transpose(by_model) for task, by_model in tasks.items()}


def prompt_answers(
    prompts: Sequence[str], measurements: Mapping[str, ModelMeasurement]
) -> list[PromptAnswers]:
    """Every model's answer to each prompt."""
    return [
        PromptAnswers.model_validate(
            {"prompt": prompt}
            | {model: own.answers[index].text for model, own in measurements.items()}
        )
        for index, prompt in enumerate(prompts)
    ]


def _transpose(values: Mapping[str, Mapping[str, T]]) -> dict[str, dict[str, T]]:
    """Exchange the two levels of keys; all inner mappings have the same."""
    keys = next(iter(values.values()))
    return {key: {outer: inner[key] for outer, inner in values.items()} for key in keys}
