"""Formats of agents that call tools in their text: MOSS's plugins and MSAgent-Bench."""

import ast
import json
import re
from typing import Any

from snaketune.data.conversation import Conversation, Message, RowError
from snaketune.data.formats.format_registry import data_format
from snaketune.data.formats.message_parts import message, role_of
from snaketune.data.formats.row_fields import (
    field,
    items,
    json_or_value,
    optional_string,
    require_object,
    string,
)

_MOSS_TAG = re.compile(r"^<\|[\w ]+\|>:?\s*|<eo\w+>\s*$")
"""MOSS's own marks around a text: `<|Human|>: ... <eoh>`."""

_THINK_MARK = "<|startofthink|>"
_THINK = re.compile(r"<\|startofthink\|>\s*```(?:JSON)?(.*?)```\s*<\|endofthink\|>", re.DOTALL)
_EXECUTION = re.compile(
    r"\s*<\|startofexec\|>\s*(?:```(?:JSON)?)?(.*?)(?:```)?\s*<\|endofexec\|>", re.DOTALL
)


@data_format("MOSS-003 with plugins; the result of a plugin is a tool's message")
def moss(row: Any) -> list[Conversation]:
    messages = [message("system", string(row, "meta_instruction").strip())]
    for turn in field(row, "chat", dict).values():
        thought, command, result = (
            _untagged(optional_string(turn, key))
            for key in ("Inner Thoughts", "Commands", "Tool Responses")
        )
        messages.append(message("user", _untagged(string(turn, "Human"))))
        if command and command != "None":
            messages.append(message("assistant", f"Thought: {thought}\nCommand: {command}"))
            messages.append(message("tool", result))
        messages.append(message("assistant", _untagged(string(turn, "MOSS"))))
    return [Conversation(messages)]


def _untagged(text: str) -> str:
    return _MOSS_TAG.sub("", text.strip()).strip()


# its rows have the keys of sharegpt: only the marks in the text tell them apart
@data_format("MSAgent-Bench, as ReAct", marker=_THINK_MARK)
def msagent(row: Any) -> list[Conversation]:
    turns = row.get("conversations") if isinstance(row, dict) else None
    if isinstance(turns, str):
        row = {"conversations": _literal(turns)}
    messages: list[Message] = []
    for turn in items(row, "conversations"):
        role, value = string(turn, "from"), string(turn, "value")
        if role == "assistant":
            messages += _react(value)
        else:
            messages.append(message(role_of(role), value))
    return [Conversation(messages)]


def _literal(text: str) -> Any:
    """Parse JSON or a Python literal (the original files hold both); nothing is evaluated."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise RowError("'conversations': expected a list of messages, found other text") from error


def _react(value: str) -> list[Message]:
    """Turn an answer with tool calls inside into ReAct: calls, their results, the final answer."""
    messages: list[Message] = []
    position = 0
    for think in _THINK.finditer(value):
        call = require_object(json_or_value(think[1], "value"), "api_name")
        thought = value[position : think.start()].strip()
        arguments = json.dumps(call.get("parameters") or {}, ensure_ascii=False)
        action = f"Action: {string(call, 'api_name')}\nAction Input: {arguments}"
        messages.append(message("assistant", f"Thought: {thought}\n{action}"))
        position = think.end()
        if execution := _EXECUTION.match(value, position):
            messages.append(message("tool", f"Response: {execution[1].strip()}"))
            position = execution.end()
    rest = value[position:].strip()
    if rest:
        messages.append(message("assistant", f"Final Answer: {rest}" if messages else rest))
    return messages
