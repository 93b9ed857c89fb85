"""Tools as an agent calls them: named arguments in, bounded text out, within a time limit."""

import ast
import inspect
import json
import queue
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from snaketune.core.errors import UserError, nearest
from snaketune.experiment.agent_files import CannedTool, ToolParameter, read_canned
from snaketune.toolbox import BUILTIN_TOOLS, BuiltinTool

T = TypeVar("T")

_MAX_INPUT = 20_000
_MAX_RESULT = 6000
"""Characters of a result that the model reads: three articles of arXiv, about 1,500 tokens."""

_FENCED = re.compile(r"\s*```(?:json|python)?\n(.*?)\n?```\s*", re.DOTALL)
_PYTHON_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "a text"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
}
_TYPE_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True)
class Tool:
    """A function that a model may call.

    Attributes:
        returns: The name and the description of the result, if the model reads one.
        timeout_seconds: A longer call is abandoned.
    """

    name: str
    description: str
    parameters: Sequence[ToolParameter]
    function: Callable[..., str]
    returns: tuple[str, str] | None = None
    timeout_seconds: float = BuiltinTool.timeout_seconds

    @property
    def required(self) -> list[str]:
        """The names of the required parameters."""
        return [parameter.name for parameter in self.parameters if parameter.required]


def make_tools(names: Sequence[str], canned: Path | None) -> list[Tool]:
    """The named built-in tools and those of a file of canned answers.

    Raises:
        UserError: A name is unknown, something a tool needs is missing, or two have one name.
    """
    for name in names:
        if name not in BUILTIN_TOOLS:
            hint = nearest(name, BUILTIN_TOOLS)
            raise UserError(f"unknown tool '{name}'.{hint} Known: {', '.join(BUILTIN_TOOLS)}")
    tools = [_builtin(BUILTIN_TOOLS[name]) for name in dict.fromkeys(names)]
    tools += [_canned(tool) for tool in (read_canned(canned) if canned else [])]
    taken = [tool.name for tool in tools]
    for name in taken:
        if taken.count(name) > 1:
            raise UserError(f"two tools are named '{name}'.\nFix: rename the one in {canned}")
    if not tools:
        known = ", ".join(BUILTIN_TOOLS)
        raise UserError(f"an agent needs a tool: name one of {known}, or a file of canned answers")
    return tools


def _builtin(tool: BuiltinTool) -> Tool:
    tool.check()  # before the first question
    parameters = [
        ToolParameter(
            name=name,
            type=_TYPE_NAMES[annotation.__origin__],
            description=annotation.__metadata__[0],
            required=parameter.default is inspect.Parameter.empty,
        )
        for name, parameter in inspect.signature(tool.function).parameters.items()
        if (annotation := parameter.annotation)
    ]
    limit = tool.timeout_seconds
    return Tool(tool.shown_as, tool.description, parameters, tool.function, tool.returns, limit)


def _canned(tool: CannedTool) -> Tool:
    return Tool(tool.name, tool.description, tool.parameters, tool.answer)


def read_arguments(text: str, parameters: Sequence[ToolParameter]) -> dict[str, Any]:
    """Read the input of a call: a JSON object, or a Python dict, whose meaning is beyond doubt.

    Raises:
        ValueError: What is wrong and what was expected, for the model to read.
    """
    # experiments/data/agent_react.jsonl trains on these messages word for word
    expected = json.dumps({each.name: f"<{_lagent_type(each).lower()}>" for each in parameters})
    expected = f"Expected a JSON object: {expected}"
    if len(text) > _MAX_INPUT:
        raise ValueError(
            f"Action Input has {len(text):,} characters; at most {_MAX_INPUT:,} may be. {expected}"
        )
    arguments = _literal(text)
    if not isinstance(arguments, dict):
        kind = type(arguments).__name__
        what = "no JSON" if arguments is None else f"a {kind}, no object"
        raise ValueError(f"Action Input is {what}. {expected}")
    if problems := [*_wrong_names(arguments, parameters), *_wrong_types(arguments, parameters)]:
        raise ValueError(f"Action Input: {'; '.join(problems)}. {expected}")
    return arguments


def _lagent_type(parameter: ToolParameter) -> str:
    """The name of a type as Lagent shows it to models."""
    return {"string": "STRING", "integer": "NUMBER", "number": "FLOAT", "boolean": "BOOLEAN"}[
        parameter.type
    ]


def describe_parameters(parameters: Sequence[ToolParameter]) -> list[dict[str, str]]:
    """Parameters in the form of Lagent's prompt."""
    return [
        {"name": each.name, "type": _lagent_type(each), "description": each.description}
        for each in parameters
    ]


def _wrong_names(arguments: dict[Any, Any], parameters: Sequence[ToolParameter]) -> list[str]:
    known = [parameter.name for parameter in parameters]
    unknown = [f"{str(name)[:40]!r} is unknown" for name in arguments if name not in known]
    missing = [
        f"{parameter.name!r} is missing"
        for parameter in parameters
        if parameter.required and parameter.name not in arguments
    ]
    return unknown[:3] + missing


def _wrong_types(arguments: dict[Any, Any], parameters: Sequence[ToolParameter]) -> list[str]:
    problems = []
    for parameter in parameters:
        types, wanted = _PYTHON_TYPES[parameter.type]
        value = arguments.get(parameter.name, types[0]())
        # to Python True is an int as well
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            problems.append(f"{parameter.name!r} should be {wanted}")
    return problems


def _literal(text: str) -> Any:
    """The value of a JSON or Python literal, None if it is neither."""
    fenced = _FENCED.fullmatch(text)
    for read in (json.loads, ast.literal_eval):
        try:
            return read((fenced[1] if fenced else text).strip())
        # hostile input: 10,000 brackets exhaust the recursion, 5,000 digits are refused
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def call_within(seconds: float, call: Callable[[], T], failed: Callable[[str], T]) -> T | None:
    """Call in a thread, None if it takes too long: the thread is then abandoned.

    A thread cannot be killed; it ends with the process at the latest. No built-in tool holds the
    interpreter lock for long: arithmetic is bounded, Python runs in another process, the others
    wait for a server.

    Args:
        failed: Makes a result of the message of an exception.
    """
    done: queue.SimpleQueue[T] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put(call())
        except BaseException as error:  # sys.exit in a tool ends the tool, not the program
            done.put(failed(f"{type(error).__name__}: {error}"))

    threading.Thread(target=work, daemon=True).start()
    try:
        return done.get(timeout=seconds)
    except queue.Empty:
        return None


# control characters steer a terminal, lone surrogates cannot be encoded, and the bidirectional
# marks show a text in another order than it is in
_INVISIBLE = {
    code: None
    for code in (
        *range(32),
        *range(127, 160),
        *range(0xD800, 0xE000),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    )
    if chr(code) not in "\t\n"
}


def bounded(text: str) -> str:
    """A text cut to what a model can use, without invisible characters."""
    cut = text[:_MAX_RESULT].translate(_INVISIBLE)
    left = len(text) - _MAX_RESULT
    return f"{cut}\n(cut here: {left:,} more characters)" if left > 0 else cut
