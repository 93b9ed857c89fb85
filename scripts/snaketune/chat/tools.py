"""A model that calls tools before it answers, as the chat talks to it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from snaketune.agent import Agent, Event, Step, answer_message, system_prompt
from snaketune.chat.context import Message
from snaketune.chat.model import Answer, ChatModel
from snaketune.chat.text import printable
from snaketune.core import cli
from snaketune.core.errors import UserError


@dataclass(frozen=True)
class Tools:
    """What an agent is given: names of tools, a file of others, turns, and where it is traced."""

    names: Sequence[str]
    canned: Path | None
    max_turn: int
    study: str | None = None


def require_tools(tools: Tools) -> None:
    """Raise UserError if a tool is unknown, or something it needs is missing."""
    system_prompt(tools.names, tools.canned)


@dataclass
class ToolAnswer(Answer):
    """An answer with the calls that led to it; `finished` is False when the turns ran out."""

    steps: list[Step] = field(default_factory=list)
    finished: bool = False


class ToolUser(ChatModel):
    """A model in the loop of an agent; it answers greedily.

    Args:
        model: The model itself.
        show: Hears what the agent does; nobody does in scripts.

    Raises:
        UserError: A tool is unknown, or something it needs is missing.
    """

    def __init__(
        self, model: ChatModel, tools: Tools, show: Callable[[Event], None] | None
    ) -> None:
        super().__init__(model.client, model.name, model.settings, model.context)
        self.answer: ToolAnswer = ToolAnswer()
        self._show = show
        self._agent = Agent(
            model.client,
            model.name,
            tools.names,
            tools.canned,
            tools.max_turn,
            self._heard,
            model.settings.max_new_tokens,
            tools.study,
        )

    def reply(self, messages: Sequence[Message]) -> Iterator[str]:
        """Yield the answer to a conversation that ends with a question, when it is there.

        Raises:
            UserError: The server refuses it or is gone, or the conversation has a system text.
        """
        self.answer = answer = ToolAnswer()
        if messages[0]["role"] == "system":
            raise UserError("with tools the system text is theirs.\n  Fix: leave yours out")
        started = time.monotonic()
        yield ""  # from here on the steps are seen, and nothing else need move
        try:
            done = self._agent.ask(messages[-1]["content"], map(_in_form, messages[:-1]))
        finally:
            answer.wall_seconds = time.monotonic() - started
        answer.text, answer.finished = done.text, done.finished
        answer.finish_reason = "stop" if done.finished else "max_turn"
        if self._show:
            self._show(Event("text", text="\n"))  # the answer begins a line
        yield done.text

    def _heard(self, event: Event) -> None:
        if event.step:
            self.answer.steps.append(event.step)
        if self._show:
            self._show(event)


def show_event(event: Event) -> None:
    """Print what the model says on its way, dim, and what came of each call, on stderr."""
    step = event.step
    if step is None:
        return cli.console.print(Text(printable(event.text), "dim"), end="")
    told = Text(f"\nResult: {printable(step.result)}", "cyan")
    if step.error is not None:
        told = Text(f"\nError: {printable(step.error)}", "yellow")
    cli.console.print(told)


def _in_form(message: Message) -> Message:
    """Return an earlier answer in the form that the model is told to answer in."""
    return answer_message(message["content"]) if message["role"] == "assistant" else message
