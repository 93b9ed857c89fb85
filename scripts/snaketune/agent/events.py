"""What an agent tells: its answer, the steps to it, and each as it happens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from snaketune.client.answer import Step

Message = dict[str, str]
"""`role` and `content`, as an OpenAI-compatible endpoint takes them."""


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
