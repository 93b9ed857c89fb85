"""A conversation with one or two models at a time, as it is shown, saved and loaded again."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, ValidationError, field_validator

from snaketune.client.answer import ChatMessage, GenerationSettings, Step
from snaketune.core.errors import UserError
from snaketune.experiment.schema import Strict

LIMIT_BYTES = 5 * 2**20
"""Of a saved conversation: far more than anyone chats, far less than fills the memory."""

Name = Annotated[str, Field(min_length=1, max_length=200)]


class DemoSettings(Strict):
    """How answers were generated."""

    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1, le=2**20)
    seed: int | None = Field(None, ge=0, lt=2**32)
    system: str = ""

    def generation(self) -> GenerationSettings:
        return GenerationSettings(self.temperature, self.top_p, self.max_new_tokens, self.seed)


class DemoAnswer(Strict):
    """One model's answer.

    Attributes:
        end: How it ended: complete, cut off at `max_new_tokens`, by Stop, out of turns with tools,
            or by an error; `writing` while it is generated.
        tokens: Of the text; None if the server did not count them.
        waited_seconds: Until the first token.
        seconds: From the first token to the last.
    """

    model: Name
    text: str = ""
    steps: list[Step] = Field([])
    end: Literal["complete", "length", "stopped", "turns", "failed", "writing"] = "complete"
    error: str | None = None
    tokens: NonNegativeInt | None = None
    waited_seconds: NonNegativeFloat = 0.0
    seconds: NonNegativeFloat = 0.0


class DemoTurn(Strict):
    """A prompt and its answers, with everything needed to generate them again.

    `settings` is None if tools could be used: those answers are greedy.
    """

    question: str
    settings: DemoSettings | None = None
    tools: list[Name] = Field([])
    answers: list[DemoAnswer] = Field(min_length=1, max_length=2)

    @field_validator("answers")
    @classmethod
    def _complete(cls, answers: list[DemoAnswer]) -> list[DemoAnswer]:
        if any(answer.end == "writing" for answer in answers):
            raise ValueError("an answer has not ended")
        return answers


class DemoConversation(Strict):
    """Turns in their order; not all need be of the same models."""

    format: Literal["snaketune-conversation-1"] = "snaketune-conversation-1"
    turns: list[DemoTurn] = Field([])

    def messages(self, model: str) -> list[ChatMessage]:
        """List what one model took part in: the prompts it answered, and its answers."""
        messages: list[ChatMessage] = []
        for turn in self.turns:
            for answer in turn.answers:
                if answer.model == model and answer.text and answer.end != "failed":
                    messages.append({"role": "user", "content": turn.question})
                    messages.append({"role": "assistant", "content": answer.text})
        return messages

    def saved(self) -> bytes:
        return self.model_dump_json(indent=2).encode() + b"\n"


def load(data: bytes) -> DemoConversation:
    """Read a saved conversation.

    Raises:
        UserError: The file is not one; the message names the place.
    """
    if len(data) > LIMIT_BYTES:
        raise UserError(f"the file has {len(data):,} bytes; the limit is {LIMIT_BYTES:,}.")
    try:
        return DemoConversation.model_validate_json(data)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{place}: {first['msg']}") from None
