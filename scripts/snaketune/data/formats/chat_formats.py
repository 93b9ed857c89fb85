"""Formats of whole conversations."""

import re
from collections.abc import Iterable
from typing import Any

from snaketune.data.conversation import (
    Conversation,
    Message,
    RowError,
    UnsupportedRow,
    with_system,
)
from snaketune.data.formats.format_registry import data_format
from snaketune.data.formats.message_parts import (
    TEXT_ONLY,
    message,
    refuse_media,
    role_of,
    tool_call,
    tool_calls,
    tools_of,
    unsupported_media,
    with_weight,
)
from snaketune.data.formats.row_fields import (
    field,
    items,
    json_or_value,
    optional_string,
    require_object,
    string,
)

_OASST1_TURN = re.compile(r"(?<!\n#)(?<!\n##)### (Human|Assistant):")
"""A question may end in "C#" directly before the mark; "#### Human:" on a line is a heading."""

_LAST_RANK = 10**6
"""The rank of replies that nobody ranked: after all that somebody did."""


@data_format(
    '`{"messages": [{"role": "user", "content": "..."}, ...]}` or the bare list, with `tools`, '
    "`tool_calls`, `code_interpreter_call`, and `weight` or `loss` of single answers"
)
def openai(row: Any) -> list[Conversation]:
    if isinstance(row, list):
        row = {"messages": row}
    # Agent-FLAN has the same messages under another key
    agent_flan = "messages" not in require_object(row, "messages") and "conversation" in row
    turns = items(row, "conversation" if agent_flan else "messages")
    messages = [_openai_message(turn) for turn in turns]
    refuse_media(row)
    return [Conversation(messages, tools_of(row))]


def _openai_message(turn: Any) -> Message:
    role, content = role_of(string(turn, "role")), turn.get("content")
    # function_call, for a single call, is the older name of tool_calls
    calls = tool_calls(turn.get("tool_calls") or turn.get("function_call") or [])
    if code := optional_string(turn, "code_interpreter_call"):
        calls.append(tool_call("code_interpreter", {"code": code}))
    if isinstance(content, list):
        content = "".join(_content_part(part) for part in content)
    if not isinstance(content, str) and not (content is None and calls):
        raise RowError(f"'content': expected a string, found {type(content).__name__}")
    result = message(role, content or "")
    if calls:
        result["tool_calls"] = calls
    return with_weight(result, turn)


def _content_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if string(part, "type") != "text":
        raise UnsupportedRow(f"'content': a part of type '{part['type']}' is not text", TEXT_ONLY)
    return string(part, "text")


@data_format(
    '`{"conversations": [{"from": "human", "value": "..."}, ...]}`, with `system`, `tools` and '
    "function calls (glaive, WizardLM)"
)
def sharegpt(row: Any) -> list[Conversation]:
    messages = _sharegpt_messages(row)
    refuse_media(row)
    return [with_system(Conversation(messages, tools_of(row)), optional_string(row, "system"))]


@data_format(
    'recognised but not supported: `{"image": "...", "conversations": [...]}`',
    more_specific_than=["sharegpt"],
)
def llava(row: Any) -> list[Conversation]:
    """Check LLaVA's rows: one image, one `<image>` in the text."""
    string(row, "image")
    images = sum(turn["content"].count("<image>") for turn in _sharegpt_messages(row))
    if images != 1:
        raise RowError(f"expected <image> once, as there is one 'image'; found it {images} times")
    raise unsupported_media("image")


def _sharegpt_messages(row: Any) -> list[Message]:
    messages = []
    for turn in items(row, "conversations"):
        role, value = string(turn, "from"), string(turn, "value")
        if role == "function_call":
            calls = tool_calls(json_or_value(value, "value"))
            result = message("assistant", "") | {"tool_calls": calls}
        else:
            result = message(role_of(role), value)
        messages.append(with_weight(result, turn))
    return messages


@data_format(
    '`{"conversation": [{"system": "...", "input": "...", "output": "..."}, ...]}`, with '
    "`output_with_loss`"
)
def xtuner(row: Any) -> list[Conversation]:
    messages: list[Message] = []
    for index, turn in enumerate(items(row, "conversation")):
        system = optional_string(turn, "system") if index == 0 else ""
        messages += [message("system", system)] if system else []
        messages.append(message("user", string(turn, "input")))
        messages.append(with_weight(message("assistant", string(turn, "output")), turn))
    return [Conversation(messages)]


@data_format('`{"text": "### Human: ...### Assistant: ..."}`', more_specific_than=["text"])
def oasst1(row: Any) -> list[Conversation]:
    before, *parts = _OASST1_TURN.split(string(row, "text"))
    if before.strip() or not parts or parts[0] != "Human":
        raise RowError("'text': expected it to start with '### Human:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [Conversation([message(roles[who], text.strip()) for who, text in pairs])]


@data_format(
    "a message tree as OpenAssistant exports it: its best-ranked path",
    more_specific_than=["oasst1_tree_all"],
)
def oasst1_tree(row: Any) -> list[Conversation]:
    messages, node = [], field(row, "prompt", dict)
    while node:
        messages.append(_tree_message(node))
        node = next(iter(_replies(node)), None)
    return [Conversation(messages)]


@data_format("a message tree as OpenAssistant exports it: every path")
def oasst1_tree_all(row: Any) -> list[Conversation]:
    def paths(node: Any) -> Iterable[list[Message]]:
        own = _tree_message(node)
        below = [[own, *path] for reply in _replies(node) for path in paths(reply)]
        return below or [[own]]

    return [Conversation(path) for path in paths(field(row, "prompt", dict)) if len(path) > 1]


def _tree_message(node: Any) -> Message:
    return message(role_of(string(node, "role")), string(node, "text"))


def _replies(node: Any) -> list[Any]:
    """The replies to a message that were not deleted, the best first."""
    replies = items({"replies": node.get("replies") or []}, "replies")
    kept = [reply for reply in replies if not require_object(reply, "text").get("deleted")]
    return sorted(kept, key=_rank)


def _rank(reply: Any) -> int:
    rank = reply.get("rank")
    return rank if isinstance(rank, int) else _LAST_RANK
