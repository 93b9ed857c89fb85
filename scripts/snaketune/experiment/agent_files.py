"""An agent's questions, and tools with canned answers: two YAML files, as typed models."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from snaketune.core.errors import UserError, nearest
from snaketune.experiment.document import DocumentError, Problem, read_document
from snaketune.experiment.explain import explain
from snaketune.experiment.schema import Strict

File = TypeVar("File", bound=BaseModel)
Text = Annotated[str, Field(min_length=1)]


class AgentQuestion(Strict):
    """`tool` is the one to call first, null for none; a right answer contains one of `accept`.

    Without `accept` the answer is not judged.
    """

    question: Text
    tool: Text | None
    accept: list[Text] = Field([])


class AgentQuestions(Strict):
    """The file: a list of questions."""

    questions: list[AgentQuestion] = Field(min_length=1)


def _named(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]{0,79}", name, re.ASCII):
        raise ValueError(f"expected a name of letters, digits, _ and dots, found '{name[:80]}'")
    return name


Name = Annotated[str, AfterValidator(_named)]


class ToolParameter(Strict):
    """A parameter of a tool."""

    name: Name
    type: Literal["string", "integer", "number", "boolean"] = "string"
    description: str = ""
    required: bool = True


class CannedAnswer(Strict):
    """One answer, to exactly these arguments."""

    input: dict[str, Any]
    result: str


class CannedTool(Strict):
    """A tool that knows these answers and no others."""

    name: Name
    description: str
    parameters: list[ToolParameter] = Field([])
    answers: list[CannedAnswer] = Field(min_length=1)

    @model_validator(mode="after")
    def _inputs_fit_parameters(self) -> "CannedTool":
        known = {parameter.name for parameter in self.parameters}
        required = {parameter.name for parameter in self.parameters if parameter.required}
        for index, answer in enumerate(self.answers):
            for name in answer.input.keys() - known:
                hint = nearest(name, known)
                raise ValueError(f"answers[{index}].input: '{name}' is not a parameter.{hint}")
            for name in required - answer.input.keys():
                raise ValueError(f"answers[{index}].input: required parameter '{name}' is missing")
        return self

    def answer(self, **arguments: Any) -> str:
        """The result for equal arguments; texts are compared without case and outer spaces.

        Raises:
            ValueError: No answer has these arguments.
        """
        plain = _plain(arguments)
        for answer in self.answers:
            if _plain(answer.input) == plain:
                return answer.result
        raise ValueError(f"{self.name} knows nothing about {arguments}")


class CannedTools(Strict):
    """The file: `tools:`, a list of them."""

    tools: list[CannedTool] = Field(min_length=1)

    @field_validator("tools")
    @classmethod
    def _once(cls, tools: list[CannedTool]) -> list[CannedTool]:
        names = [tool.name for tool in tools]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"'{min(twice)}' is a duplicate")
        return tools


def read_questions(file: Path) -> list[AgentQuestion]:
    """Read a file of questions.

    Raises:
        UserError: With every mistake in the file, by line and key.
    """
    return _read(
        file, AgentQuestions, "questions", "the agent's questions cannot be used"
    ).questions


def read_canned(file: Path) -> list[CannedTool]:
    """Read a file of tools with canned answers.

    Raises:
        UserError: With every mistake in the file, by line and key.
    """
    return _read(file, CannedTools, "tools", "the canned answers cannot be used").tools


def question_problems(file: Path) -> list[Problem]:
    """Every mistake in a file of questions."""
    return _validated(file, AgentQuestions, "questions")[1]


def canned_problems(file: Path) -> list[Problem]:
    """Every mistake in a file of tools with canned answers."""
    return _validated(file, CannedTools, "tools")[1]


def _read(file: Path, model: type[File], key: str, summary: str) -> File:
    found, problems = _validated(file, model, key)
    if found is None:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{summary}:\n{listed}")
    return found


def _validated(file: Path, model: type[File], key: str) -> tuple[File | None, list[Problem]]:
    """A file's content, or its mistakes.

    Args:
        key: The key of the items where the file is a plain list.
    """
    try:
        document = read_document(file, list_as=key)
        return model.model_validate(document.values), []
    except DocumentError as error:
        return None, [error.problem]
    except ValidationError as error:
        return None, explain(error, model, document)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.strip().casefold() if isinstance(value, str) else value
