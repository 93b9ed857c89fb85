"""What an agent is asked to see how well it does: a YAML file of questions, as typed models."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from snaketune.errors import UserError
from snaketune.experiment.document import DocumentError, Problem, read_document
from snaketune.experiment.explain import explain
from snaketune.experiment.schema import Strict

Text = Annotated[str, Field(min_length=1)]


class Question(Strict):
    """`tool` should be called first, none if it is null; `accept` is in every right answer.

    What has no `accept` is not judged by its answer.
    """

    question: Text
    tool: Text | None
    accept: list[Text] = Field([])


class Questions(Strict):
    """The file: a list of questions."""

    questions: list[Question] = Field(min_length=1)


def read_questions(file: Path) -> list[Question]:
    """Return the questions of a file.

    Raises:
        UserError: With everything that is wrong in the file, by line and key.
    """
    problems: list[Problem] = []
    found = _read(file, problems)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"the agent's questions cannot be put:\n{listed}")
    return found


def question_problems(file: Path) -> list[Problem]:
    """Return everything that is wrong in a file of questions."""
    problems: list[Problem] = []
    _read(file, problems)
    return problems


def _read(file: Path, problems: list[Problem]) -> list[Question]:
    try:
        document = read_document(file, list_as="questions")
        return Questions.model_validate(document.values).questions
    except DocumentError as error:
        problems.append(error.problem)
    except ValidationError as error:
        problems += explain(error, Questions, document)
    return []
