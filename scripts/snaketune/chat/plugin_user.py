"""A model tuned on MOSS-003 in the chat: its commands are carried out before it answers.

Trained here (`format: moss`), a turn with commands is an answer of its own, "Thought: ...\\n
Command: ...", and the results come as a tool's message. Trained by XTuner or by MOSS's own program,
everything is one answer with marks, which is stopped at <eoc> and continued behind the results.
"""

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import openai
from rich.text import Text

from snaketune.chat.context import Fitted, Message
from snaketune.chat.model import Answer, ChatModel
from snaketune.chat.plugins import NOTHING, Step, carry_out, declare
from snaketune.chat.text import printable
from snaketune.core import cli
from snaketune.core.errors import UserError

END_OF_COMMANDS, END_OF_ANSWER = "<eoc>", "<eom>"
ROUNDS = 4
"""Turns with commands for a question; what the model says after them is its answer."""

_OURS = re.compile(r"(?:Thought: .*?\n)?Command: (.*)", re.DOTALL)
_MARKED = re.compile(r"(?:<\|Inner Thoughts\|>:.*?)?<\|Commands\|>:(.*)", re.DOTALL)
_BEGINNINGS = ("Thought: ", "Command: ", "<|Inner Thoughts|>:", "<|Commands|>:")
_SPOKEN = "<|MOSS|>: "


@dataclass
class PluginAnswer(Answer):
    """An answer with the commands that led to it."""

    steps: list[Step] = field(default_factory=list)


class PluginUser(ChatModel):
    """A model whose commands are carried out.

    Args:
        model: The model itself.
        enabled: The plugins that are switched on.
        show: Hears of each turn with commands; nobody does in scripts.
    """

    def __init__(
        self, model: ChatModel, enabled: Sequence[str], show: Callable[[Step], None] | None
    ) -> None:
        settings = replace(model.settings, stop=(*model.settings.stop, END_OF_COMMANDS))
        super().__init__(model.client, model.name, model.settings, model.context)
        self.answer: PluginAnswer = PluginAnswer()
        self._model = ChatModel(model.client, model.name, settings, model.context)
        self._enabled, self._show = enabled, show
        self._said: dict[tuple[str, str], list[Message]] = {}

    def reply(self, messages: Sequence[Message]) -> Iterator[str]:
        """Yield the pieces of the answer to a conversation that ends with a question.

        Raises:
            UserError: The question is too long, or the server refuses it or is gone.
        """
        self.answer = answer = PluginAnswer()
        started = time.monotonic()
        said = self._remembered(messages)
        asked = len(said)
        try:
            text = yield from self._rounds(said)
        finally:
            answer.wall_seconds = time.monotonic() - started
        if not answer.text:
            answer.text = text
            yield text
        question = messages[-1]["content"]
        self._said[question, answer.text] = [*said[asked:], _message("assistant", text)]

    def _rounds(self, said: list[Message]) -> Generator[str, None, str]:
        """Have the model speak until it answers; add what is said on the way to `said`."""
        for more_may_come in [True] * ROUNDS + [False]:
            text = yield from self._turn(said)
            commands = _OURS.fullmatch(text) or _MARKED.fullmatch(text)
            if not commands or not more_may_come or self.answer.finish_reason != "stop":
                break
            step = self._carry_out(commands[1])
            if commands.re is _MARKED:
                text += f"{END_OF_COMMANDS}\n<|Results|>:\n{step.results}\n<eor>\n"
                return text + (yield from self._continued(said, text))
            said += [_message("assistant", text), _message("tool", step.results)]
        return text

    def _remembered(self, messages: Sequence[Message]) -> list[Message]:
        """Return a conversation with the plugins declared, and what led to earlier answers."""
        has_system = messages[0]["role"] == "system"
        own = self.context.system if self.context else ""
        system = declare(messages[0]["content"] if has_system else own, self._enabled)
        said, question = [_message("system", system)], ""
        for message in messages[has_system:]:
            key = question, message["content"]
            known = self._said.get(key) if message["role"] == "assistant" else None
            said += known or [message]
            question = message["content"]
        return said

    def _turn(self, said: list[Message]) -> Generator[str, None, str]:
        """Yield what of a turn is an answer, nothing of one with commands; return all of it."""
        with closing(self._model.reply(said)) as pieces:  # type: ignore[type-var]
            text = yield from self._spoken(pieces, lambda s: "" if _may_be_commands(s) else s)
        answer, turn = self.answer, self._model.answer
        answer.finish_reason, answer.left_out = turn.finish_reason, turn.left_out
        answer.prompt_tokens = turn.prompt_tokens
        answer.completion_tokens = turn.completion_tokens and (
            turn.completion_tokens + (answer.completion_tokens or 0)
        )
        return text

    def _spoken(
        self, pieces: Iterable[str], part: Callable[[str], str]
    ) -> Generator[str, None, str]:
        """Yield the part of a growing text that is for the user, and return all of the text."""
        text = ""
        for piece in pieces:
            text += piece
            if new := part(text)[len(self.answer.text) :]:
                self.answer.text += new
                yield new
        return text

    def _carry_out(self, commands: str) -> Step:
        step = carry_out(commands, self._enabled)
        if step.results != NOTHING:
            self.answer.steps.append(step)
            if self._show:
                self._show(step)
        return step

    def _continued(self, said: list[Message], begun: str) -> Generator[str, None, str]:
        """Yield what the model says behind the results of its commands, and return it.

        Raises:
            UserError: The server refuses it or is gone, or the model's template is not known.
        """
        if self.context is None:
            raise UserError(
                f"{self.name} writes commands with MOSS's own marks; going on behind them needs "
                "its chat template, which only a model served here has.\n  Fix: leave out --url"
            )
        prompt = self.context.bare_prompt(self._fitted(said).messages) + begun
        try:
            with self.client.completions.create(**self._text_request(prompt)) as stream:
                pieces = (self._taken(event) for event in stream)
                return (yield from self._spoken(pieces, _behind_mark))
        except (openai.OpenAIError, ValueError) as error:
            raise UserError(printable(self._explained(error))) from error

    def _text_request(self, prompt: str) -> dict[str, Any]:
        """Return a request of /v1/completions with the settings of the chat's."""
        request = self._request(Fitted([], self.settings.max_new_tokens))
        del request["messages"]
        return request | {"prompt": prompt, "stop": [*self.settings.stop, END_OF_ANSWER]}

    def _taken(self, event: Any) -> str:
        """Return the text of an event of /v1/completions, and take its figures."""
        if event.usage:
            self.answer.prompt_tokens = event.usage.prompt_tokens
            spent = self.answer.completion_tokens or 0
            self.answer.completion_tokens = spent + event.usage.completion_tokens
        for choice in event.choices:
            self.answer.finish_reason = choice.finish_reason or self.answer.finish_reason
        return "".join(choice.text or "" for choice in event.choices)


def _may_be_commands(text: str) -> bool:
    """Tell whether a turn that begins so may be one with commands."""
    return any(begin.startswith(text[: len(begin)]) for begin in _BEGINNINGS)


def _behind_mark(text: str) -> str:
    """Return what is said to the user of a text; nothing before the mark is there."""
    return text.partition(_SPOKEN)[2]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def show_step(step: Step) -> None:
    """Print commands with their results, and why there are none, on stderr."""
    cli.console.print(Text(printable(step.commands.strip()), "dim"))
    cli.console.print(Text(printable(step.results), "cyan"))
    for error in step.errors:
        cli.console.print(Text(printable(error), "yellow"))
