"""What several formats share: messages, roles, weights, tool calls, and rows with media."""

from typing import Any

from snaketune.data.conversation import Conversation, Message, RowError, UnsupportedRow
from snaketune.data.formats.row_fields import items, json_or_value, optional_string, string

MEDIA_KEYS = ("image", "images", "video", "videos", "audio", "audios")

_WEIGHT_KEYS = ("loss_weight", "weight", "loss", "output_with_loss")
"""The key of an answer's weight: ours, OpenAI's, Agent-FLAN's and XTuner's."""

_LARGEST_WEIGHT = 3.4e38
"""Weights are stored as float32."""

TEXT_ONLY = "leave these rows out, or remove the parts that are not text to train on the text alone"

_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "code_interpreter": "tool",
}


def message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def exchange(question: str, answer: str) -> Conversation:
    return Conversation([message("user", question), message("assistant", answer)])


def role_of(name: str) -> str:
    if name not in _ROLES:
        raise RowError(f"'role': expected one of {', '.join(_ROLES)}, found '{name}'")
    return _ROLES[name]


def with_weight(answer: Message, fields: Any) -> Message:
    key = next((key for key in _WEIGHT_KEYS if fields.get(key) is not None), None)
    return answer | {"weight": _weight(fields[key], key)} if key else answer


def _weight(value: Any, key: str) -> float:
    if isinstance(value, str) and value.lower() in ("true", "false"):  # Agent-FLAN writes text
        return float(value.lower() == "true")
    if isinstance(value, bool | int | float) and 0 <= value <= _LARGEST_WEIGHT:
        return float(value)
    raise RowError(f"'{key}': expected true, false or a finite number from 0, found {value!r}")


def tools_of(row: Any) -> list[Any] | None:
    key = next((key for key in ("tools", "functions") if row.get(key)), None)
    tools = items({key: json_or_value(row[key], key) or []}, key) if key else []
    # InternLM2 describes its interpreter separately from other tools
    if interpreter := optional_string(row, "code_interpreter"):
        tools = [*tools, {"name": "code_interpreter", "description": interpreter}]
    return [_wrapped(tool) for tool in tools] or None


def _wrapped(tool: Any) -> Any:
    """Wrap a bare function as chat templates take it: `{"type": "function", "function": {...}}`."""
    bare = isinstance(tool, dict) and "name" in tool and "function" not in tool
    return {"type": "function", "function": tool} if bare else tool


def tool_calls(calls: Any) -> list[Message]:
    """Bring one call or a list of calls into the shape of `tool_call`."""
    result = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, dict) else call
        name = string(function, "name")
        arguments = function.get("arguments", function.get("parameters"))
        result.append(tool_call(name, json_or_value(arguments, "arguments") or {}))
    return result


def tool_call(name: str, arguments: Any) -> Message:
    """Make a function call as chat templates take it."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def refuse_media(row: Any) -> None:
    key = next((key for key in MEDIA_KEYS if row.get(key)), None)
    if key:
        raise unsupported_media(key)


def unsupported_media(key: str) -> UnsupportedRow:
    return UnsupportedRow(
        f"'{key}': training on rows with images, video or audio is not supported", TEXT_ONLY
    )
