"""Probes: questions whose answers show what a model has learned, what it spoils and what it kept.

The questions are in experiments/probes/NAME.yaml; `experiment.probe_files` tells their kinds. Each
kind has one figure, reported as NAME, or several, reported as NAME.METRIC.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snaketune.core.progress import track_progress
from snaketune.evaluation.batched_answers import Told, tell
from snaketune.evaluation.heldout import HeldoutAnswers
from snaketune.experiment.probe_files import (
    Contains,
    MultipleChoice,
    Numeric,
    Probe,
    ProbeTool,
    QuestionAnswering,
    ToolCalls,
    read_probe,
)
from snaketune.models.generation import prompt_ids
from snaketune.models.likelihood import choice_log_probs
from snaketune.models.load import device
from snaketune.scoring.answers import (
    calls_a_tool,
    contains,
    exact_match,
    numeric_match,
    rouge_l,
    token_f1,
    tool_call,
)
from snaketune.scoring.intervals import mean, share

Asked = Probe | HeldoutAnswers
Found = Sequence[Told] | Sequence[list[float]]
"""A model's answers to a probe's questions, or of multiple choice each choice's log-probability."""

METRICS: dict[str, tuple[str, ...]] = {
    "contains": ("found",),
    "excludes": ("found",),
    "numeric": ("right",),
    "question_answering": ("exact_match", "token_f1", "rouge_l"),
    "multiple_choice": ("acc", "acc_norm"),
    "tool_calls": ("strict", "lenient", "allowed", "complete", "no_call"),
}
"""The figures of each kind, as verdicts call them: true or false, or from 0 to 1.

A question that needs no tool is judged by `no_call` alone, and no other is.
"""

CALLING = """You can use these tools:
{tools}

To use one, answer in this form and with nothing else:
Thought: why a tool is needed
Action: the name of the tool
Action Input: its arguments, as one JSON object"""
"""The system message of a probe of tool calls that brings none: the ReAct form lagent reads."""


def read_probes(folder: Path, names: Iterable[str], persona: str | None) -> dict[str, Asked]:
    """Return each probe's questions.

    Args:
        folder: experiments/probes.
        persona: The name that the data teaches the model.

    Raises:
        UserError: A file is missing or has mistakes, each told with its line.
    """
    return {name: read_probe(folder / f"{name}.yaml", persona) for name in names}


def ask(
    model: Any,
    tokenizer: Any,
    probe: Asked,
    template: dict[str, Any],
    max_new_tokens: int,
    label: str,
) -> Found:
    """Return the model's greedy answers to the questions, or how likely it holds their choices.

    Args:
        template: What data.json tells of it.
        max_new_tokens: The longest answer to a held-out row; a probe tells its own.
        label: What the progress line says.
    """
    if isinstance(probe, MultipleChoice):
        return _log_probs(model, tokenizer, probe, template.get("system"), label)
    if isinstance(probe, HeldoutAnswers):
        prompts = [row.prompt for row in probe.questions]
    else:
        max_new_tokens = probe.max_new_tokens
        system = template.get("system")
        if isinstance(probe, ToolCalls):
            system = system_message(probe)
        questions = [each.question for each in probe.questions]
        prompts = prompt_ids(tokenizer, questions, system)
    return tell(model, tokenizer, prompts, max_new_tokens, template["end_token_ids"], label)


def system_message(probe: ToolCalls) -> str:
    """Return what a model is told of the tools, one as JSON on each line."""
    listed = "\n".join(json.dumps(_told_of(tool), ensure_ascii=False) for tool in probe.tools)
    return (probe.system or CALLING).replace("{tools}", listed)


def judge(
    probes: Mapping[str, Asked], told: Mapping[str, Mapping[str, Found]]
) -> list[dict[str, Any]]:
    """Return the rows of probes.jsonl: each question with every model's answer and its verdict.

    Args:
        told: By model and probe, what `ask` returned.

    Returns:
        Of each question `probe`, `kind`, `question`, `forms` (what is right), and by model a dict
        with `answer`, `right`, the figures of METRICS and what tells of going round in circles.
    """
    return [
        {"probe": name, "kind": kind(probe), "question": question.question}
        | {"forms": _forms(probe, question)}
        | {model: _verdict(probe, question, found[name][i]) for model, found in told.items()}
        for name, probe in probes.items()
        for i, question in enumerate(probe.questions)
    ]


def summary(
    probes: Mapping[str, Asked], rows: Sequence[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return each probe's figures: the one wanted, and each model's with its 95 % interval."""
    figures = {}
    for name, probe in probes.items():
        own = [row for row in rows if row["probe"] == name]
        metrics = metrics_of(probe) if own else ()
        for metric in metrics:
            judged = [row for row in own if metric in row[_models(own)[0]]]
            if judged:
                figures[name if len(metrics) == 1 else f"{name}.{metric}"] = {
                    "wanted": getattr(probe, "wanted", 1)
                } | {
                    model: _figure([row[model][metric] for row in judged])
                    for model in _models(judged)
                }
    return figures


def habits(told: Mapping[str, Sequence[Told]]) -> dict[str, dict[str, Any]]:
    """Return the figures over all answers of each model: none of either is wanted.

    `repetition` is the mean share of 4-grams of tokens that an answer had before, `never_stops`
    the share of answers without an end token.
    """
    if not all(told.values()):
        return {}
    return {
        "repetition": {"wanted": 0}
        | {model: mean([each.repetition for each in every]) for model, every in told.items()},
        "never_stops": {"wanted": 0}
        | {model: share([not each.stopped for each in every]) for model, every in told.items()},
    }


def kind(probe: Asked) -> str:
    """Return what a probe is scored as."""
    return "question_answering" if isinstance(probe, HeldoutAnswers) else probe.kind


def metrics_of(probe: Asked) -> tuple[str, ...]:
    """Return the names of a probe's figures."""
    also = ("numeric",) if isinstance(probe, HeldoutAnswers) and probe.numeric else ()
    return METRICS[kind(probe)] + also


def _log_probs(
    model: Any, tokenizer: Any, probe: MultipleChoice, system: str | None, label: str
) -> list[list[float]]:
    begin = [{"role": "system", "content": system}] if system else []
    found = []
    with track_progress(label, len(probe.questions), "questions") as done:
        for question in probe.questions:
            prompt = tokenizer.apply_chat_template(
                [*begin, {"role": "user", "content": question.question}],
                add_generation_prompt=True,
                tokenize=False,
            )
            found.append(choice_log_probs(model, tokenizer, prompt, question.choices, device()))
            done(len(found))
    return found


def _forms(probe: Asked, question: Any) -> list[str]:
    """Return what makes an answer right."""
    if isinstance(probe, Contains):
        return question.accept
    if isinstance(probe, ToolCalls):
        return [tool.name for tool in probe.tools] if question.call else ["no call"]
    return question.answers if hasattr(question, "answers") else [question.answer]


def _verdict(probe: Asked, question: Any, told: Any) -> dict[str, Any]:
    if isinstance(probe, MultipleChoice):
        return _choice(question, told)
    scored = _scored(probe, question, told.text)
    circles = {"repetition": told.repetition, "stopped": told.stopped}
    return {"answer": told.text} | scored | circles


def _scored(probe: Asked, question: Any, text: str) -> dict[str, Any]:
    if isinstance(probe, Contains):
        found = any(contains(text, form) for form in question.accept)
        return {"found": found, "right": found == bool(probe.wanted)}
    if isinstance(probe, Numeric):
        return {"right": numeric_match(text, question.answer)}
    if isinstance(probe, ToolCalls):
        if not question.call:
            quiet = not calls_a_tool(text)
            return {"no_call": quiet, "right": quiet}
        call = tool_call(text, {tool.name: tool.required for tool in probe.tools})
        return call | {"right": call["strict"] and call["complete"]}
    assert isinstance(probe, QuestionAnswering | HeldoutAnswers)
    exact = exact_match(text, question.answers)
    near = {
        "token_f1": token_f1(text, question.answers),
        "rouge_l": rouge_l(text, question.answers),
    }
    if isinstance(probe, QuestionAnswering) or not probe.numeric:
        return {"right": exact, "exact_match": exact} | near
    same = numeric_match(text, question.answers[0])
    return {"right": same, "exact_match": exact} | near | {"numeric": same}


def _choice(question: Any, log_probs: list[float]) -> dict[str, Any]:
    """Judge by the sum of log-probabilities (acc) and by that of a character (acc_norm).

    These are lm-evaluation-harness' definitions: `acc_norm` divides by the characters of the
    choice, as long ones are less likely.
    """
    lengths = map(len, question.choices)
    of_character = [total / length for total, length in zip(log_probs, lengths, strict=True)]
    likeliest, norm = (
        question.choices[scores.index(max(scores))] for scores in (log_probs, of_character)
    )
    right = likeliest == question.answer
    told = {"answer": likeliest, "right": right, "acc": right, "acc_norm": norm == question.answer}
    return told | {"log_probs": log_probs}


def _figure(values: list[Any]) -> dict[str, float]:
    return share(values) if isinstance(values[0], bool) else mean(values)


def _models(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [key for key, value in rows[0].items() if isinstance(value, dict)]


def _told_of(tool: ProbeTool) -> dict[str, Any]:
    return tool.model_dump(exclude_defaults=True)
