"""Lagent's ReAct loop, with its parts replaced where they are broken or unfit."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import openai
from lagent.actions import ActionExecutor
from lagent.agents.react import ReActProtocol
from lagent.llms import BaseAPIModel
from lagent.schema import ActionReturn, ActionStatusCode

from snaketune.agent.events import Event, Message, OnEvent, Step
from snaketune.agent.react import STOP, parse, response_message
from snaketune.agent.tools import Tool
from snaketune.agent.tracing import Spans
from snaketune.client.server_errors import server_reason
from snaketune.core.errors import UserError

_LONGEST = 6000
"""Characters of a result that the model is shown: three articles of arXiv, 1,500 tokens."""


class Endpoint(BaseAPIModel):
    """The model behind an OpenAI-compatible endpoint.

    Lagent's GPTAPI sends `n` and a frequency penalty in place of the repetition penalty, prints and
    swallows the server's errors, logs keys, and cannot be stopped while it waits.
    """

    def __init__(
        self, client: openai.OpenAI, model: str, on_event: OnEvent, max_tokens: int, spans: Spans
    ) -> None:
        super().__init__(model_type=model)
        self.client, self.on_event, self.spans = client, on_event, spans
        self.max_tokens = max_tokens

    def chat(self, inputs: list[Message], **gen_params: Any) -> str:
        """Return the model's next turn, greedily; each piece of it is told as it comes.

        Raises:
            UserError: The endpoint failed.
        """
        request: dict[str, Any] = {
            "model": self.model_type,
            "messages": inputs,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stop": [STOP],
        }
        with self.spans.span(self.model_type, "LLM", request) as span:
            try:
                said = self._streamed(request)
            except (openai.OpenAIError, ValueError) as error:
                raise UserError(
                    f"{self.model_type} did not answer: {server_reason(error)}"
                ) from error
            span.outputs = said.partition(STOP)[0]
        return span.outputs

    def _streamed(self, request: dict[str, Any]) -> str:
        said = ""
        with self.client.chat.completions.create(**request, stream=True) as stream:
            for chunk in stream:
                if chunk.choices and (piece := chunk.choices[0].delta.content):
                    said += piece
                    self.on_event(Event("text", text=piece))
        return said


class Protocol(ReActProtocol):
    """Lagent's prompt, with our reading of a turn and our form of a result (see `react`).

    Lagent sends results and the last turn's order to finish as system messages, which many chat
    templates refuse after the first message; here both are the user's.
    """

    def format(
        self,
        chat_history: list[Message],
        inner_step: list[Message],
        action_executor: ActionExecutor,
        force_stop: bool = False,
    ) -> list[Message]:
        """Return the messages of the next turn."""
        messages = super().format(chat_history, inner_step, action_executor)
        if force_stop:
            last = messages[-1]
            messages[-1] = {**last, "content": f"{last['content'].rstrip()}\n{self.force_stop}"}
        return messages

    def parse(self, message: str, action_executor: "Executor") -> tuple[str, str, str]:
        """Return thought, action and input of a turn; the executor hears the thought as well."""
        found = parse(message, action_executor.action_names())
        action_executor.thought = found.thought
        if found.final is not None:
            return found.thought, action_executor.finish_action.name, found.final
        lagents = (action_executor.finish_action.name, action_executor.no_action.name)
        if found.tool is None or found.tool in lagents:  # its own words, no tools of a model
            return found.thought, action_executor.no_action.name, found.tool_input
        return found.thought, found.tool, found.tool_input

    def format_response(self, action_return: ActionReturn) -> Message:
        """Return a call's result, or its error, as a message."""
        failed = action_return.state != ActionStatusCode.SUCCESS
        return response_message(action_return.errmsg if failed else action_return.format_result())


class Executor(ActionExecutor):
    """Runs the tools of one question, and keeps the steps.

    Lagent's splits a name at its dots and fails on two, lets a name reach any attribute of a tool
    (`Arithmetic.parser`), tells a model that names a wrong tool nothing but its own input, and
    waits for a hanging tool for ever.
    """

    def __init__(self, tools: Sequence[Tool], on_event: OnEvent, spans: Spans) -> None:
        super().__init__(list(tools))
        self.on_event, self.spans = on_event, spans
        self.thought = ""
        self.steps: list[Step] = []

    def __call__(self, name: str, command: str) -> ActionReturn:
        """Call a tool; whatever it does, there is a result or an error of bounded length."""
        if name == self.finish_action.name:
            return self.finish_action(command)
        started = time.monotonic()
        with self.spans.span(name[:80], "TOOL", command) as span:
            returned = self._returned(name, command)
            if returned.state == ActionStatusCode.SUCCESS:
                span.outputs = returned.format_result()
            else:
                span.error = returned.errmsg
        step = Step(
            thought=self.thought,
            tool="" if name == self.no_action.name else name,
            tool_input=command,
            result=span.outputs or "",
            error=span.error or None,
            seconds=time.monotonic() - started,
        )
        self.steps.append(step)
        self.on_event(Event("step", step=step))
        return returned

    def _returned(self, name: str, command: str) -> ActionReturn:
        if name == self.no_action.name:
            return self.no_action("")
        if name not in self.actions:
            known = ", ".join(self.actions)
            return _failure(name, f"There is no tool {name[:80]!r}. Use one of: {known}")
        tool = self.actions[name]
        returned = _within(tool.seconds, lambda: tool(command))
        if returned is None:
            return _failure(name, f"{name} was stopped after {tool.seconds:g} seconds")
        if returned.state == ActionStatusCode.SUCCESS:
            returned.result = [{"type": "text", "content": _shown(returned.format_result())}]
        else:
            returned.errmsg = _shown(returned.errmsg or "the tool failed without a word")
        return returned


def _failure(name: str, message: str) -> ActionReturn:
    return ActionReturn(type=name, errmsg=message, state=ActionStatusCode.API_ERROR)


def _within(seconds: float, call: Callable[[], ActionReturn]) -> ActionReturn | None:
    """Return what a call returns, or None if that takes too long: it is then left behind.

    A thread cannot be killed; it ends with the process at the latest. No tool of ours holds the
    interpreter: arithmetic is bounded, Python runs in another process, the others wait.
    """
    done: queue.SimpleQueue[ActionReturn] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put(call())
        except BaseException as error:  # sys.exit in a tool ends the tool
            done.put(_failure("", f"{type(error).__name__}: {error}"))

    threading.Thread(target=work, daemon=True).start()
    try:
        return done.get(timeout=seconds)
    except queue.Empty:
        return None


_UNSEEN = {code: None for code in (*range(32), 127, *range(128, 160), *range(0xD800, 0xE000))} | {
    code: None for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
for _kept in "\t\n":
    del _UNSEEN[ord(_kept)]


def _shown(text: str) -> str:
    """Return a text cut to what a model can use, without characters that steer a terminal."""
    cut = text[:_LONGEST].translate(_UNSEEN)
    left = len(text) - _LONGEST
    return f"{cut}\n(cut here: {left:,} more characters)" if left > 0 else cut
