"""The contract with Lagent's inside: lagent_adapter must replace what ReAct still calls."""

import inspect
from importlib.metadata import version

import pytest
from lagent.actions import ActionExecutor, BaseAction, JsonParser
from lagent.agents import ReAct
from lagent.agents.react import ReActProtocol
from lagent.llms import BaseAPIModel

from snaketune.agent.events import ignore
from snaketune.agent.lagent_adapter import ToolAction, ToolExecutor
from snaketune.agent.tools import make_tools
from snaketune.agent.tracing import Spans

CHANGED = f"Lagent {version('lagent')} changed: adapt agent/lagent_adapter.py"


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (BaseAPIModel.chat, ["self", "inputs", "gen_params"]),
        (ReActProtocol.format, ["self", "chat_history", "inner_step", "action_executor"]),
        (ReActProtocol.parse, ["self", "message", "action_executor"]),
        (ReActProtocol.format_response, ["self", "action_return"]),
        (ActionExecutor.__call__, ["self", "name", "command"]),
        (JsonParser.parse_inputs, ["self", "inputs", "name"]),
        (BaseAction.__init__, ["self", "description", "parser", "enable"]),
    ],
)
def test_replaced_methods_have_their_parameters(method, parameters):
    known = list(inspect.signature(method).parameters)
    assert known[: len(parameters)] == parameters, CHANGED


def test_loop_calls_what_is_replaced():
    source = inspect.getsource(ReAct.chat)
    for call in (
        "self._protocol.format(",
        "force_stop=",
        "self._llm.chat(",
        "self._protocol.parse(",
        "self._action_executor(",
        "finish_action.name",
        "format_result()",
        "self._protocol.format_response(",
        "inner_steps",
    ):
        assert call in source, f"{CHANGED} (ReAct.chat no longer has {call})"


def test_executor_and_action_have_what_is_used():
    executor = ToolExecutor(make_tools(["arithmetic"], None), ignore, Spans())
    assert (executor.finish_action.name, executor.no_action.name) == ("FinishAction", "NoAction")
    assert executor.action_names() == ["Arithmetic"], CHANGED
    action = executor.actions["Arithmetic"]
    assert isinstance(action, ToolAction) and not action.is_toolkit, CHANGED
    assert action('{"expression": "6*7"}').format_result() == "42", CHANGED
    failed = action("six")
    assert failed.errmsg and "Expected a JSON object" in failed.errmsg, CHANGED
