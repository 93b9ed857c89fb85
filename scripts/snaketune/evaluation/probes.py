"""Probes: questions whose answers show what a model has learned, what it spoils and what it kept.

The questions are in experiments/probes/NAME.yaml. An answer is right if it has one of a question's
accepted forms, or, of `leak`, if it has none.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from snaketune.errors import UserError
from snaketune.evaluation.metrics import contains, share
from snaketune.experiment.schema import PERSONA_PROBES, Strict
from snaketune.models.generation import answer

WANTED = {"identity": 1, "leak": 0, "retention": 1}
"""The share of answers with an accepted form that a good model has."""

MAX_NEW_TOKENS = 48
_BATCH = 20

Text = Annotated[str, Field(min_length=1)]


class Question(Strict):
    """A question, and what its answer is searched for: by default the persona's name."""

    question: Text
    accept: list[Text] = Field([])


_QUESTIONS = TypeAdapter(Annotated[list[Question], Field(min_length=1)])


def read_probes(
    folder: Path, names: Iterable[str], persona: str | None
) -> dict[str, list[Question]]:
    """Return each probe's questions, all with accepted forms.

    Args:
        folder: experiments/probes.
        persona: The name that the data teaches the model.

    Raises:
        UserError: A file is missing or not a list of questions, or one has nothing to accept.
    """
    return {
        name: _read(folder / f"{name}.yaml", persona if name in PERSONA_PROBES else None)
        for name in names
    }


def ask(
    model: Any, tokenizer: Any, questions: Sequence[Question], template: dict[str, Any]
) -> list[str]:
    """Return the model's greedy answer to each question; the other arguments are `answer`'s."""
    texts = [each.question for each in questions]
    return [
        told
        for start in range(0, len(texts), _BATCH)
        for told in answer(
            model, tokenizer, texts[start : start + _BATCH], MAX_NEW_TOKENS, template
        )
    ]


def judge(
    probes: dict[str, list[Question]], told: dict[str, dict[str, list[str]]]
) -> list[dict[str, Any]]:
    """Return the rows of probes.jsonl: each question with every model's answer and its verdict.

    Args:
        told: By model and probe, what the model answered to each question.
    """
    return [
        {"probe": name, "question": question.question, "forms": question.accept}
        | {model: _verdict(name, question, found[name][index]) for model, found in told.items()}
        for name, questions in probes.items()
        for index, question in enumerate(questions)
    ]


def summary(
    probes: dict[str, list[Question]], rows: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return of each probe the share of answers with an accepted form, and the share wanted."""
    return {
        name: {"wanted": WANTED[name]}
        | {
            model: share([row[model]["found"] for row in rows if row["probe"] == name])
            for model in _models(rows)
        }
        for name in probes
    }


def _models(rows: list[dict[str, Any]]) -> list[str]:
    return [key for key, value in rows[0].items() if isinstance(value, dict)]


def _read(path: Path, persona: str | None) -> list[Question]:
    try:
        questions = _QUESTIONS.validate_python(YAML(typ="safe").load(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, YAMLError, ValidationError) as error:
        raise UserError(
            f"{path} is not a list of questions: {error}\n"
            "  Fix: write each as - {question: ..., accept: [...]}"
        ) from error
    if persona is not None:
        name = {"accept": [persona]}
        questions = [each if each.accept else each.model_copy(update=name) for each in questions]
    if lacking := [each.question for each in questions if not each.accept]:
        raise UserError(
            f"{path}: nothing is accepted as an answer to '{lacking[0]}'.\n"
            "  Fix: give it accept: [...] (identity and leak: give the data vars: {name: ...})"
        )
    return questions


def _verdict(probe: str, question: Question, told: str) -> dict[str, Any]:
    found = any(contains(told, form) for form in question.accept)
    return {"answer": told, "found": found, "right": found == bool(WANTED[probe])}
