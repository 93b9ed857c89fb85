"""A model tuned on MOSS-003 in the chat: its commands are executed before it answers.

Trained here (`format: moss`), a turn with commands is a message of its own, "Thought: ...\\n
Command: ...", and the results follow as a tool's message. Trained by XTuner or by MOSS's own
program, everything is one message with marks, which is stopped at <eoc> and continued after the
results.
"""

import re
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from rich.text import Text

from snaketune.client.answer import Answer, ChatMessage
from snaketune.client.chat_client import ChatClient
from snaketune.core import cli
from snaketune.core.errors import UserError
from snaketune.core.text import printable
from snaketune.moss.plugins import NO_COMMANDS, PluginCall, declare, execute

END_OF_COMMANDS, END_OF_ANSWER = "<eoc>", "<eom>"
MAX_COMMAND_TURNS = 4
"""Turns with commands before an answer; what the model writes after them is its answer."""

_OURS = re.compile(r"(?:Thought: .*?\n)?Command: (.*)", re.DOTALL)
_MARKED = re.compile(r"(?:<\|Inner Thoughts\|>:.*?)?<\|Commands\|>:(.*)", re.DOTALL)
_COMMAND_TURN_STARTS = ("Thought: ", "Command: ", "<|Inner Thoughts|>:", "<|Commands|>:")
_ANSWER_MARK = "<|MOSS|>: "


@dataclass
class PluginAnswer(Answer):
    """An answer with the commands that led to it."""

    steps: list[PluginCall] = field(default_factory=list)


class PluginUser(ChatClient):
    """A chat model whose commands are executed.

    Args:
        model: The model itself.
        enabled: Names of the plugins that may run.
        show: Called after each turn with commands; None in scripts.
    """

    answer: PluginAnswer

    def __init__(
        self, model: ChatClient, enabled: Sequence[str], show: Callable[[PluginCall], None] | None
    ) -> None:
        super().__init__(model.client, model.name, model.settings, model.context, model.log)
        self.answer = PluginAnswer()
        self._turn_model = _stopping_at(model, END_OF_COMMANDS)
        self._rest_model = _stopping_at(model, END_OF_ANSWER)
        self._enabled, self._show = enabled, show
        # by prompt and answer, which are all that the chat keeps: the model was trained to see its
        # earlier commands and results as well
        self._full_turns: dict[tuple[str, str], list[ChatMessage]] = {}

    def stream(self, messages: Sequence[ChatMessage]) -> Generator[str, None, None]:
        """Yield the answer in pieces, without the commands before it.

        Raises:
            UserError: The prompt is too long, or the server refuses it or fails.
        """
        self.answer = answer = PluginAnswer()
        started = time.monotonic()
        conversation = self._with_commands(messages)
        sent = len(conversation)
        try:
            text = yield from self._answer(conversation)
        finally:
            answer.wall_seconds = time.monotonic() - started
        if not answer.text:  # only commands, or a thought without one: better shown than nothing
            answer.text = text
            yield text
        prompt = messages[-1]["content"]
        self._full_turns[prompt, answer.text] = [*conversation[sent:], _message("assistant", text)]

    def _answer(self, conversation: list[ChatMessage]) -> Generator[str, None, str]:
        """Generate turns until one is an answer; append the turns before it to `conversation`."""
        for may_command in [True] * MAX_COMMAND_TURNS + [False]:
            text = yield from self._turn(conversation)
            commands = _OURS.fullmatch(text) or _MARKED.fullmatch(text)
            if not commands or not may_command or self.answer.finish_reason != "stop":
                break
            call = self._execute(commands[1])
            if commands.re is _MARKED:  # the model learned the results inside its own message
                text += f"{END_OF_COMMANDS}\n<|Results|>:\n{call.results}\n<eor>\n"
                return text + (yield from self._rest(conversation, text))
            conversation += [_message("assistant", text), _message("tool", call.results)]
        return text

    def _with_commands(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """Declare the plugins, and put back the commands that led to earlier answers."""
        has_system = messages[0]["role"] == "system"
        own = self.context.system if self.context else ""
        system = declare(messages[0]["content"] if has_system else own, self._enabled)
        conversation, prompt = [_message("system", system)], ""
        for message in messages[has_system:]:
            key = prompt, message["content"]
            known = self._full_turns.get(key) if message["role"] == "assistant" else None
            conversation += known or [message]
            prompt = message["content"]
        return conversation

    def _turn(self, conversation: list[ChatMessage]) -> Generator[str, None, str]:
        """Yield a turn as far as it is an answer, not commands; return all of it."""
        model = self._turn_model
        with closing(model.stream(conversation)) as pieces:
            text = yield from self._visible(
                pieces, lambda text: "" if _may_be_commands(text) else text
            )
        self.answer.left_out = model.answer.left_out
        self._add_figures(model.answer)
        return text

    def _rest(self, conversation: list[ChatMessage], begun: str) -> Generator[str, None, str]:
        """Continue a marked turn after the results of its commands; return the continuation.

        Raises:
            UserError: The server refuses it or fails, or the model's template is unknown.
        """
        if self.context is None:
            raise UserError(
                f"{self.name} writes commands with MOSS's own marks, and continuing after their "
                "results needs the model's chat template, which is known only for a model served "
                "by SnakeTune.\n  Fix: leave out --url"
            )
        prompt = self.context.bare_prompt(self.fit(conversation).messages) + begun
        model = self._rest_model
        with closing(model.stream_text(prompt)) as pieces:
            text = yield from self._visible(pieces, lambda text: text.partition(_ANSWER_MARK)[2])
        self._add_figures(model.answer)
        return text

    def _visible(
        self, pieces: Iterable[str], visible: Callable[[str], str]
    ) -> Generator[str, None, str]:
        """Yield the part of a growing text that is for the user; return all of the text."""
        text = ""
        for piece in pieces:
            text += piece
            if new := visible(text)[len(self.answer.text) :]:
                self.answer.text += new
                yield new
        return text

    def _execute(self, commands: str) -> PluginCall:
        call = execute(commands, self._enabled)
        if call.results != NO_COMMANDS:
            self.answer.steps.append(call)
            if self._show:
                self._show(call)
        return call

    def _add_figures(self, turn: Answer) -> None:
        """Take over how a turn ended; the tokens of the answer are those of all its turns."""
        answer = self.answer
        answer.finish_reason = turn.finish_reason
        answer.prompt_tokens = turn.prompt_tokens or answer.prompt_tokens
        if turn.completion_tokens:
            answer.completion_tokens = turn.completion_tokens + (answer.completion_tokens or 0)


def _stopping_at(model: ChatClient, mark: str) -> ChatClient:
    settings = replace(model.settings, stop=(*model.settings.stop, mark))
    return ChatClient(model.client, model.name, settings, model.context, model.log)


def _may_be_commands(text: str) -> bool:
    return any(start.startswith(text[: len(start)]) for start in _COMMAND_TURN_STARTS)


def _message(role: str, content: str) -> ChatMessage:
    return {"role": role, "content": content}


def show_call(call: PluginCall) -> None:
    """Print commands, their results and their errors on stderr."""
    cli.console.print(Text(printable(call.commands.strip()), "dim"))
    cli.console.print(Text(printable(call.results), "cyan"))
    for error in call.errors:
        cli.console.print(Text(printable(error), "yellow"))
