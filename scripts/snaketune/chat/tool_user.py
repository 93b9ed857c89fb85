"""A chat model that calls tools before it answers."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from snaketune.agent import Agent, Event, answer_message, system_prompt
from snaketune.client.answer import Answer, ChatMessage, Step
from snaketune.client.chat_client import ChatClient
from snaketune.core import cli
from snaketune.core.errors import UserError
from snaketune.core.text import printable
from snaketune.tracking.agent_traces import MlflowTracer


@dataclass(frozen=True)
class ToolOptions:
    """What an agent may use.

    Attributes:
        names: Of built-in tools.
        canned: A file of further tools with canned answers.
        max_turn: Turns of the model for one prompt.
        study: Its MLflow experiment gets the traces; None for no traces.
    """

    names: Sequence[str]
    canned: Path | None
    max_turn: int
    study: str | None = None


def require_tools(options: ToolOptions) -> None:
    """Raise UserError, before a model is loaded, if a tool is unknown or cannot work."""
    system_prompt(options.names, options.canned)


@dataclass
class ToolAnswer(Answer):
    """An answer with the calls that led to it; `finished` is False if the turns ran out."""

    steps: list[Step] = field(default_factory=list)
    finished: bool = False


class ToolUser(ChatClient):
    """A chat model in an agent's loop; it answers greedily.

    Args:
        model: The model itself.
        show: Called with every event of the agent; None in scripts.

    Raises:
        UserError: A tool is unknown, or something it needs is missing.
    """

    answer: ToolAnswer

    def __init__(
        self, model: ChatClient, options: ToolOptions, show: Callable[[Event], None] | None
    ) -> None:
        super().__init__(model.client, model.name, model.settings, model.context, model.log)
        self.answer = ToolAnswer()
        self._show = show
        self._agent = Agent(
            model.client,
            model.name,
            options.names,
            options.canned,
            options.max_turn,
            self._on_event,
            model.settings.max_new_tokens,
            MlflowTracer(options.study) if options.study else None,
        )

    def stream(self, messages: Sequence[ChatMessage]) -> Generator[str, None, None]:
        """Yield an empty piece when the agent starts, and the answer, in one piece, at its end.

        Raises:
            UserError: The server refuses the request or fails, or there is a system message.
        """
        self.answer = answer = ToolAnswer()
        if messages[0]["role"] == "system":
            raise UserError(
                "with tools the system text is that of the tools.\n  Fix: leave out your own"
            )
        started = time.monotonic()
        yield ""  # ends the spinner: from here on the agent's events are shown
        try:
            result = self._agent.ask(messages[-1]["content"], map(_in_react_form, messages[:-1]))
        finally:
            answer.wall_seconds = time.monotonic() - started
        answer.text, answer.finished = result.text, result.finished
        answer.finish_reason = "stop" if result.finished else "max_turn"
        if self._show:
            self._show(Event("text", text="\n"))  # the answer starts on a new line
        yield result.text

    def _on_event(self, event: Event) -> None:
        if event.step:
            self.answer.steps.append(event.step)
        if self._show:
            self._show(event)


def show_event(event: Event) -> None:
    """Print the model's turns, dimmed, and the result of each call on stderr."""
    step = event.step
    if step is None:
        return cli.console.print(Text(printable(event.text), "dim"), end="")
    outcome = Text(f"\nResult: {printable(step.result)}", "cyan")
    if step.error is not None:
        outcome = Text(f"\nError: {printable(step.error)}", "yellow")
    cli.console.print(outcome)


def _in_react_form(message: ChatMessage) -> ChatMessage:
    """Write an earlier answer in the form in which the system text demands answers."""
    return answer_message(message["content"]) if message["role"] == "assistant" else message
