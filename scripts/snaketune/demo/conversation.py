"""A conversation with one or two models at a time, as it is shown, saved and loaded again."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, ValidationError, field_validator

from snaketune.core.errors import UserError
from snaketune.experiment.schema import Strict

LIMIT_BYTES = 5 * 2**20
"""Of a saved conversation; a longer file is no conversation that a person had."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
Message = dict[str, str]


class Settings(Strict):
    """How answers were generated."""

    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1, le=2**20)
    seed: int | None = Field(None, ge=0, lt=2**32)
    system: str = ""


class Step(Strict):
    """One tool call: what the model thought, what it asked which tool, and what came back."""

    thought: str = ""
    tool: str = ""
    tool_input: str = ""
    result: str = ""
    error: str | None = None
    seconds: NonNegativeFloat = 0.0


class Answer(Strict):
    """What one model said.

    Attributes:
        end: How it ended: by itself, at `max_new_tokens`, by Stop, after too many tool calls, or
            by an error; `writing` while it goes on.
        tokens: Of the text, None where the server did not count them.
        waited_seconds: Until its first token.
        seconds: From there to its last.
    """

    model: Name
    text: str = ""
    steps: list[Step] = Field([])
    end: Literal["complete", "length", "stopped", "turns", "failed", "writing"] = "complete"
    error: str | None = None
    tokens: NonNegativeInt | None = None
    waited_seconds: NonNegativeFloat = 0.0
    seconds: NonNegativeFloat = 0.0


class Turn(Strict):
    """A question and the answers to it, with everything that it takes to ask it again.

    `settings` is None where tools could be used: those answers are greedy.
    """

    question: str
    settings: Settings | None = None
    tools: list[Name] = Field([])
    answers: list[Answer] = Field(min_length=1, max_length=2)

    @field_validator("answers")
    @classmethod
    def _ended(cls, answers: list[Answer]) -> list[Answer]:
        if any(each.end == "writing" for each in answers):
            raise ValueError("an answer has not ended")
        return answers


class Conversation(Strict):
    """Turns in their order; not all need be of the same models."""

    format: Literal["snaketune-conversation-1"] = "snaketune-conversation-1"
    turns: list[Turn] = Field([])

    def messages(self, model: str) -> list[Message]:
        """Return what a model has been part of: questions that it answered, and its answers."""
        found: list[Message] = []
        for turn in self.turns:
            for answer in turn.answers:
                if answer.model == model and answer.text and answer.end != "failed":
                    found.append({"role": "user", "content": turn.question})
                    found.append({"role": "assistant", "content": answer.text})
        return found

    def saved(self) -> bytes:
        """Return it as a file's bytes."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def load(data: bytes) -> Conversation:
    """Return a saved conversation.

    Raises:
        UserError: The file is none, with what is wrong where.
    """
    if len(data) > LIMIT_BYTES:
        raise UserError(f"the file has {len(data):,} bytes; {LIMIT_BYTES:,} are the most.")
    try:
        return Conversation.model_validate_json(data)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{place}: {first['msg']}") from None
