"""What is sent to a chat model and what comes back. Imports neither torch nor openai."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

ChatMessage = dict[str, Any]
"""`role` and `content`, as the chat completions API takes them."""


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is generated.

    Attributes:
        temperature: 0 is greedy decoding; above it tokens are sampled.
        top_p: Sample from the most probable tokens whose probabilities add up to this.
        max_new_tokens: Upper limit on the length of an answer.
        seed: Of the sampling.
        stop: An answer ends before the first of these strings.
    """

    temperature: float = 0.0
    top_p: float | None = None
    max_new_tokens: int = 512
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def as_request(self) -> dict[str, Any]:
        """Name the settings as the API does; what is not set is left to the server."""
        request = {
            "temperature": self.temperature,
            "max_tokens": self.max_new_tokens,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": list(self.stop) or None,
        }
        return {key: value for key, value in request.items() if value is not None}


@dataclass(frozen=True)
class Step:
    """One tool call on the way to an answer.

    Attributes:
        thought: The model's text before the call.
        tool: Its name; empty, with an `error`, if the model's turn was neither a call nor an
            answer.
        tool_input: As the model wrote it.
        result: What the tool returned, shortened and without control characters; empty if there
            is an `error`.
        seconds: Duration of the call.
    """

    # saved conversations are untrusted: pydantic checks a nested dataclass by these rules
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    thought: str = ""
    tool: str = ""
    tool_input: str = ""
    result: str = ""
    error: str | None = None
    seconds: Annotated[float, Field(ge=0)] = 0.0


@dataclass
class Answer:
    """An answer, growing while it streams.

    Attributes:
        finish_reason: `stop`, `length`, or None until it is complete and where it was interrupted.
        prompt_tokens, completion_tokens: As the server counts them; None if it does not.
        wall_seconds: From the request to the last token so far.
        left_out: How many of the oldest turns did not fit the context and were not sent.
    """

    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    wall_seconds: float = 0.0
    left_out: int = 0
