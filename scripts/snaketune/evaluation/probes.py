"""Probes: questions whose answers show what a model has learned, unlearned and kept.

Their kinds and metrics are in `experiment.probe_kinds`. Here they are put to models, and the scores
are summed up.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snaketune.core.progress import track_progress
from snaketune.data.data_record import TemplateRecord
from snaketune.evaluation.batched_answers import Generation, generate_answers
from snaketune.evaluation.evaluation_record import ProbeAnswer, ProbedQuestion, ProbeFigure
from snaketune.experiment.probe_files import read_probe
from snaketune.experiment.probe_kinds import (
    DEGENERATION_METRICS,
    MultipleChoice,
    Probe,
    Score,
    Scored,
    figure_name,
)
from snaketune.models.generation import prompt_ids
from snaketune.models.likelihood import choice_log_probs
from snaketune.models.load_model import device
from snaketune.scoring.estimate import Estimate
from snaketune.scoring.intervals import mean, share

ProbeOutputs = Sequence[Generation] | Sequence[list[float]]
"""By question: a model's answer, or for multiple choice the log-probability of each choice."""


def read_probes(folder: Path, names: Iterable[str], persona: str | None) -> dict[str, Scored]:
    """Read the questions of the named probes.

    Args:
        folder: experiments/probes.
        persona: The name that the data teaches the model.

    Raises:
        UserError: A file is missing or has mistakes.
    """
    return {name: read_probe(folder / f"{name}.yaml", persona) for name in names}


def run_probe(
    model: Any,
    tokenizer: Any,
    probe: Scored,
    template: TemplateRecord,
    max_new_tokens: int,
    label: str,
) -> ProbeOutputs:
    """Let a model answer the questions of a probe greedily, or compute its choices' likelihood.

    Args:
        max_new_tokens: The limit for held-out rows; a probe has its own.
        label: Names the progress line.
    """
    if isinstance(probe, MultipleChoice):
        return _log_probs(model, tokenizer, probe, template.system, label)
    if isinstance(probe, Probe):
        max_new_tokens = probe.max_new_tokens
        system = probe.system_message(template.system)
        questions = [question.question for question in probe.questions]
        prompts = prompt_ids(tokenizer, questions, system)
    else:
        # held-out rows are token ids already, as the model would have been trained on them
        prompts = [row.prompt for row in probe.questions]
    ends = template.end_token_ids
    return generate_answers(model, tokenizer, prompts, max_new_tokens, ends, label)


def score_answers(
    probes: Mapping[str, Scored], outputs: Mapping[str, Mapping[str, ProbeOutputs]]
) -> list[ProbedQuestion]:
    """Score every answer of every model: the rows of probes.jsonl.

    Args:
        outputs: By model and probe, what `run_probe` returned.
    """
    return [
        ProbedQuestion.model_validate(
            {
                "probe": name,
                "kind": probe.kind,
                "question": question.question,
                "forms": probe.references(question),
            }
            | {
                model: _scored_answer(probe, question, of_probes[name][index])
                for model, of_probes in outputs.items()
            }
        )
        for name, probe in probes.items()
        for index, question in enumerate(probe.questions)
    ]


def _scored_answer(probe: Scored, question: Any, output: Generation | list[float]) -> ProbeAnswer:
    details: dict[str, Any]
    if isinstance(output, Generation):
        text, scores = output.text, probe.scores(question, output.text)
        details = {"repetition": output.repetition, "stopped": output.stopped}
    else:
        text, scores = question.likeliest(output), probe.scores(question, output)
        details = {"log_probs": output}
    right = {"right": probe.is_right(scores)}
    return ProbeAnswer.model_validate({"answer": text} | right | scores | details)


def probe_figures(
    probes: Mapping[str, Scored], questions: Sequence[ProbedQuestion]
) -> dict[str, ProbeFigure]:
    """Sum up the scores: each metric of each probe, for every model."""
    figures = {}
    for name, probe in probes.items():
        own = [question.by_model for question in questions if question.probe == name]
        for metric in probe.metrics:
            scores = {
                model: [answers[model].score(metric.name) for answers in own]
                for model in (own[0] if own else ())
            }
            if any(score is not None for of_model in scores.values() for score in of_model):
                figure = figure_name(name, metric, probe.metrics)
                figures[figure] = _figure(metric.wanted, scores)
    return figures


def degeneration_metrics(
    generations: Mapping[str, Sequence[Generation]],
) -> dict[str, ProbeFigure]:
    """The figures of DEGENERATION_METRICS over all generated answers; none if there are none.

    Args:
        generations: By model.
    """
    if not all(generations.values()):
        return {}
    figures = {}
    for name, metric in DEGENERATION_METRICS.items():
        scores = {
            model: [metric.score(None, None, generation) for generation in own]
            for model, own in generations.items()
        }
        figures[name] = _figure(metric.wanted, scores)
    return figures


def _figure(wanted: float, scores: Mapping[str, Sequence[Score | None]]) -> ProbeFigure:
    """Estimate a metric for every model from its scores, leaving out where it does not apply."""
    estimates = {
        model: _estimate([score for score in own if score is not None])
        for model, own in scores.items()
    }
    return ProbeFigure.model_validate({"wanted": wanted} | estimates)


def _estimate(scores: Sequence[Score]) -> Estimate:
    hits = [score for score in scores if isinstance(score, bool)]
    return Estimate.model_validate(share(hits) if len(hits) == len(scores) else mean(scores))


def _log_probs(
    model: Any, tokenizer: Any, probe: MultipleChoice, system: str | None, label: str
) -> list[list[float]]:
    begin = [{"role": "system", "content": system}] if system else []
    log_probs: list[list[float]] = []
    with track_progress(label, len(probe.questions), "questions") as done:
        for question in probe.questions:
            prompt = tokenizer.apply_chat_template(
                [*begin, {"role": "user", "content": question.question}],
                add_generation_prompt=True,
                tokenize=False,
            )
            choices = choice_log_probs(model, tokenizer, prompt, question.choices, device())
            log_probs.append(choices)
            done(len(log_probs))
    return log_probs
