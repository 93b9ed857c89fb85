"""What an agent tells: its answer, the steps to it, and each as it happens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Message = dict[str, str]
"""`role` and `content`, as an OpenAI-compatible endpoint takes them."""


@dataclass(frozen=True)
class Step:
    """One turn that did not end in an answer.

    `tool` is empty, and `error` says so, where the model kept to no form. `tool_input` is the raw
    text of its Action Input; `result` is what the tool returned, cut and without control
    characters, and empty beside an `error`.
    """

    thought: str
    tool: str
    tool_input: str
    result: str
    error: str | None
    seconds: float


@dataclass(frozen=True)
class Answer:
    """What a question led to.

    `finished` is False when the turns ran out. `messages` are the question, the model's turns and
    the tools' results as they were sent: passed on as `history` they continue the conversation.
    """

    text: str
    steps: list[Step]
    finished: bool
    messages: list[Message]


@dataclass(frozen=True)
class Event:
    """`text`: the next piece of the model's turn, as it streams. `step`: a step is done."""

    kind: Literal["text", "step"]
    text: str = ""
    step: Step | None = None


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing with an event."""
