"""What an agent reports: its answer, the steps to it, and events as they happen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from snaketune.client.answer import ChatMessage, Step


@dataclass(frozen=True)
class AgentAnswer:
    """What a question led to.

    Attributes:
        finished: False when the turns ran out.
        messages: The question, the model's turns and the tools' results as they were sent: passed
            on as `history` they continue the conversation.
    """

    text: str
    steps: list[Step]
    finished: bool
    messages: list[ChatMessage]


@dataclass(frozen=True)
class Event:
    """`text`: the next piece of the model's turn, as it streams. `step`: a step is done."""

    kind: Literal["text", "step"]
    text: str = ""
    step: Step | None = None


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing with an event."""
