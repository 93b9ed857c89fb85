"""Tools whose answers stand in a YAML file, for tests and for work without a network."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from snaketune.errors import UserError, nearest
from snaketune.experiment.document import DocumentError, Problem, read_document
from snaketune.experiment.explain import explain
from snaketune.experiment.schema import Strict


def _named(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]{0,79}", name, re.ASCII):
        raise ValueError(f"expected a name of letters, digits, _ and dots, found '{name[:80]}'")
    return name


Name = Annotated[str, AfterValidator(_named)]


class Parameter(Strict):
    """What a tool is told."""

    name: Name
    type: Literal["string", "integer", "number", "boolean"] = "string"
    description: str = ""
    required: bool = True


class Canned(Strict):
    """One answer, to exactly these arguments."""

    input: dict[str, Any]
    result: str


class CannedTool(Strict):
    """A tool that knows the answers it is given here, and no others."""

    name: Name
    description: str
    parameters: list[Parameter] = Field([])
    answers: list[Canned] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_be_asked(self) -> "CannedTool":
        known = {each.name for each in self.parameters}
        required = {each.name for each in self.parameters if each.required}
        for index, answer in enumerate(self.answers):
            for name in answer.input.keys() - known:
                hint = nearest(name, known)
                raise ValueError(f"answers[{index}].input: '{name}' is no parameter.{hint}")
            for name in required - answer.input.keys():
                raise ValueError(f"answers[{index}].input: '{name}' is required and missing")
        return self

    def answer(self, **arguments: Any) -> str:
        """Return the result for equal arguments; texts are equal without case and outer blanks.

        Raises:
            ValueError: There is none.
        """
        asked = _plain(arguments)
        for each in self.answers:
            if _plain(each.input) == asked:
                return each.result
        raise ValueError(f"{self.name} knows nothing about {arguments}")


class CannedTools(Strict):
    """The file: `tools:`, a list of them."""

    tools: list[CannedTool] = Field(min_length=1)

    @field_validator("tools")
    @classmethod
    def _once(cls, tools: list[CannedTool]) -> list[CannedTool]:
        names = [each.name for each in tools]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"'{min(twice)}' is there twice")
        return tools


def read_canned(file: Path) -> list[CannedTool]:
    """Return the tools of a file.

    Raises:
        UserError: With everything that is wrong in the file, by line and key.
    """
    try:
        document = read_document(file, list_as="tools")
        return CannedTools.model_validate(document.values).tools
    except DocumentError as error:
        problems: list[Problem] = [error.problem]
    except ValidationError as error:
        problems = explain(error, CannedTools, document)
    listed = "\n".join(f"  {problem}" for problem in problems)
    raise UserError(f"the canned answers cannot be used:\n{listed}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.strip().casefold() if isinstance(value, str) else value
