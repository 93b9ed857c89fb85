"""Lagent's ReAct loop, with the parts replaced that are broken or unsuitable.

Checked with lagent 0.2.4, the version that pyproject.toml pins. Used of its inside: what ReAct.chat
calls on its model (`chat`), protocol (`format`, `parse`, `format_response`) and executor (call,
`finish_action`, `no_action`, `action_names`), BaseAction's description and JsonParser.
tests/agent/test_lagent_adapter.py fails when these change.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import openai
from lagent.actions import ActionExecutor, BaseAction, JsonParser
from lagent.actions.parser import ParseError
from lagent.agents import ReAct
from lagent.agents.react import ReActProtocol
from lagent.llms import BaseAPIModel
from lagent.schema import ActionReturn, ActionStatusCode

from snaketune.agent.events import Event, OnEvent
from snaketune.agent.react import STOP, parse, response_message
from snaketune.agent.tools import Tool, bounded, call_within, describe_parameters, read_arguments
from snaketune.agent.tracing import Spans
from snaketune.client.answer import ChatMessage, GenerationSettings, Step
from snaketune.client.chat_client import ChatClient


class ArgumentParser(JsonParser):
    """Reads the input of calls.

    Lagent's own ends in an exception that nothing catches on a list, a number, 10,000 brackets or a
    number of 5,000 digits, and never checks types. Its outputs lose every character that GBK lacks,
    such as emoji and most accents.
    """

    def parse_inputs(self, inputs: str, name: str = "run") -> dict[str, Any]:
        """Read the arguments of a call.

        Raises:
            ParseError: The model reads its message.
        """
        try:
            return read_arguments(inputs, self.action.tool.parameters)
        except ValueError as error:
            raise ParseError(str(error)) from error

    def parse_outputs(self, outputs: Any) -> list[dict[str, str]]:
        """A tool's text in the form of Lagent's results."""
        return [{"type": "text", "content": str(outputs)}]


class ToolAction(BaseAction):
    """A tool as one of Lagent's actions.

    One class for all tools: Lagent registers action classes by their name, its own `GoogleSearch`
    and `PythonInterpreter` among them, and refuses a second one of a name.
    """

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        described: dict[str, Any] = {
            "name": tool.name,
            "description": tool.description,
            "parameters": describe_parameters(tool.parameters),
            "required": tool.required,
        }
        if tool.returns:
            name, description = tool.returns
            result = {"name": name, "description": description, "type": "STRING"}
            described["return_data"] = [result]
        super().__init__(described, ArgumentParser)

    def run(self, **arguments: Any) -> str:
        """Call the function."""
        return self.tool.function(**arguments)


class Endpoint(BaseAPIModel):
    """The model behind an OpenAI-compatible endpoint.

    Lagent's GPTAPI sends `n` and a frequency penalty in place of the repetition penalty, prints and
    swallows the server's errors, logs keys, and cannot be stopped while it waits.
    """

    def __init__(
        self, client: openai.OpenAI, model: str, on_event: OnEvent, max_tokens: int, spans: Spans
    ) -> None:
        super().__init__(model_type=model)
        settings = GenerationSettings(max_new_tokens=max_tokens, stop=(STOP,))
        self.model = ChatClient(client, model, settings)
        self.on_event, self.spans = on_event, spans

    def chat(self, inputs: list[ChatMessage], **gen_params: Any) -> str:
        """Generate the model's next turn greedily, with an event for each streamed piece.

        Raises:
            UserError: The endpoint failed.
        """
        with self.spans.span(self.model_type, "LLM", self.model.request(inputs)) as span:
            with closing(self.model.stream(inputs)) as pieces:
                for piece in pieces:
                    self.on_event(Event("text", text=piece))
            # not every server honours `stop`
            span.outputs = self.model.answer.text.partition(STOP)[0]
        return span.outputs


class Protocol(ReActProtocol):
    """Lagent's prompt, with our reading of a turn and our form of a result (see `react`).

    Lagent sends results and the order to finish in the last turn as system messages, which many
    chat templates refuse after the first message; here both are the user's.
    """

    def format(
        self,
        chat_history: list[ChatMessage],
        inner_step: list[ChatMessage],
        action_executor: ActionExecutor,
        force_stop: bool = False,
    ) -> list[ChatMessage]:
        """The messages of the next turn."""
        messages = super().format(chat_history, inner_step, action_executor)
        if force_stop:
            last = messages[-1]
            messages[-1] = {**last, "content": f"{last['content'].rstrip()}\n{self.force_stop}"}
        return messages

    def parse(self, message: str, action_executor: "ToolExecutor") -> tuple[str, str, str]:
        """Thought, action and input of a turn; the executor notes the thought for its step."""
        turn = parse(message, action_executor.action_names())
        action_executor.thought = turn.thought
        if turn.final is not None:
            return turn.thought, action_executor.finish_action.name, turn.final
        # these two names are Lagent's own signals, not tools that a model may call
        signals = (action_executor.finish_action.name, action_executor.no_action.name)
        if turn.tool is None or turn.tool in signals:
            return turn.thought, action_executor.no_action.name, turn.tool_input
        return turn.thought, turn.tool, turn.tool_input

    def format_response(self, action_return: ActionReturn) -> ChatMessage:
        """A call's result, or its error, as a message."""
        failed = action_return.state != ActionStatusCode.SUCCESS
        return response_message(action_return.errmsg if failed else action_return.format_result())


class ToolExecutor(ActionExecutor):
    """Runs the tools of one question and collects the steps.

    Lagent's splits a name at its dots and fails on two, lets a name reach any attribute of a tool
    (`Arithmetic.parser`), answers a wrong tool's name with nothing but the input, and waits for a
    hanging tool for ever.
    """

    def __init__(self, tools: Sequence[Tool], on_event: OnEvent, spans: Spans) -> None:
        super().__init__([ToolAction(tool) for tool in tools])
        self.on_event, self.spans = on_event, spans
        self.thought = ""
        self.steps: list[Step] = []

    def __call__(self, name: str, command: str) -> ActionReturn:
        """Call a tool; whatever it does, the result is text or an error of bounded length."""
        if name == self.finish_action.name:
            return self.finish_action(command)
        started = time.monotonic()
        with self.spans.span(name[:80], "TOOL", command) as span:
            returned = self._result(name, command)
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

    def _result(self, name: str, command: str) -> ActionReturn:
        if name == self.no_action.name:
            return self.no_action("")
        if name not in self.actions:
            known = ", ".join(self.actions)
            return _failure(name, f"There is no tool {name[:80]!r}. Use one of: {known}")
        action = self.actions[name]
        limit = action.tool.timeout_seconds
        returned = call_within(limit, lambda: action(command), lambda text: _failure(name, text))
        if returned is None:
            return _failure(name, f"{name} was stopped after {limit:g} seconds")
        if returned.state == ActionStatusCode.SUCCESS:
            returned.result = [{"type": "text", "content": bounded(returned.format_result())}]
        else:
            returned.errmsg = bounded(returned.errmsg or "the tool failed without an error message")
        return returned


def _failure(name: str, message: str) -> ActionReturn:
    return ActionReturn(type=name, errmsg=message, state=ActionStatusCode.API_ERROR)


@dataclass(frozen=True)
class LoopResult:
    """What the loop led to; `messages` are the turns and results that followed the question."""

    text: str
    finished: bool
    steps: list[Step]
    messages: list[ChatMessage] = field(default_factory=list)


def run_react(
    endpoint: Endpoint, tools: Sequence[Tool], messages: list[ChatMessage], max_turn: int
) -> LoopResult:
    """Run the loop on a conversation that ends with a question."""
    executor = ToolExecutor(tools, endpoint.on_event, endpoint.spans)
    returned = ReAct(endpoint, executor, Protocol(), max_turn).chat(messages)
    finished = returned.actions[-1].type == executor.finish_action.name
    text = returned.response.strip()
    return LoopResult(text, finished, executor.steps, returned.inner_steps)


def react_prompt(tools: Sequence[Tool], on_event: OnEvent) -> str:
    """Lagent's system message, filled in with the tools."""
    return Protocol().format([], [], ToolExecutor(tools, on_event, Spans()))[0]["content"]
