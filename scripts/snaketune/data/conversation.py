"""Conversations: what rows of any format become, completed and trimmed to what is learned."""

import json
import re
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
"""`role` (system, user, assistant, tool) and `content`; an answer may also have `tool_calls`, as
chat templates take them, and `weight`: 0 leaves it out of the loss."""


class RowError(ValueError):
    """A row is wrong, which stops the preparation.

    Args:
        fix: How to solve it, if not by correcting the row or naming its format.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode())
        self.fix = fix


class UnsupportedRow(RowError):
    """A well-formed row of a kind that cannot be trained on."""


class SkippedRow(Exception):
    """A row is not used. Reasons hold no details of the row: the report counts equal ones."""


@dataclass
class Conversation:
    """Messages, and the functions that may be called in them (JSON schemas, or None)."""

    messages: list[Message]
    tools: list[Any] | None = None


def with_system(conversation: Conversation, system: str) -> Conversation:
    """Add a system message, unless it is "" or the conversation does not begin with a question."""
    if system and conversation.messages[:1] and conversation.messages[0]["role"] == "user":
        conversation.messages.insert(0, {"role": "system", "content": system})
    return conversation


def fill(conversation: Conversation, values: dict[str, str]) -> Conversation:
    """Replace `{{key}}` by `values[key]` in all messages.

    Raises:
        RowError: `values` lacks a key of the text.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = f"`vars` has only: {', '.join(values)}" if values else "no `vars` are set"
            raise RowError(
                f"the text contains {match[0]}, but {known}",
                f"set it for the source, e.g. vars: {{{match[1]}: Ada}}, or correct the rows",
            )
        return values[match[1]]

    messages = [
        message | {"content": _PLACEHOLDER.sub(value, message["content"])}
        for message in conversation.messages
    ]
    return Conversation(messages, conversation.tools)


def trim(conversation: Conversation) -> Conversation:
    """Join consecutive questions, and drop what follows the last answer.

    Raises:
        RowError: A text, a call or a tool contains a lone surrogate (half a character).
        SkippedRow: There is no answer or a blank one, or the roles are in an impossible order.
    """
    _require_texts(conversation)
    messages: list[Message] = []
    for message in conversation.messages:
        if messages and message["role"] == messages[-1]["role"] == "user":
            joined = f"{messages[-1]['content']}\n{message['content']}"
            messages[-1] = messages[-1] | {"content": joined}
        else:
            messages.append(message)
    while messages and messages[-1]["role"] not in ("assistant", "text"):
        messages.pop()
    _require_dialogue(messages)
    return Conversation(messages, conversation.tools)


def require_text(content: str) -> str:
    """Raise RowError for a text that cannot be written as UTF-8: JSON allows lone surrogates."""
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            f"contains {error.object[error.start]!a}, half a character (a lone surrogate)"
        ) from error
    return content


def _require_texts(conversation: Conversation) -> None:
    for message in conversation.messages:
        require_text(message["content"])
    calls = [message["tool_calls"] for message in conversation.messages if "tool_calls" in message]
    if not calls and not conversation.tools:
        return
    try:
        require_text(json.dumps([conversation.tools, calls], ensure_ascii=False))
    except TypeError as error:
        raise RowError(f"tools and calls must be valid JSON values: {error}") from error


def _require_dialogue(messages: list[Message]) -> None:
    """Raise SkippedRow unless each message may follow the one before it."""
    if not any(message["role"] in ("assistant", "text") for message in messages):
        raise SkippedRow("no answer to learn from")
    before = ""
    for message in messages:
        role = message["role"]
        if before not in _MAY_FOLLOW[role]:
            raise SkippedRow(_UNEXPECTED[role])
        calls = message.get("tool_calls")
        if role in ("assistant", "text") and not calls and not message["content"].strip():
            raise SkippedRow("a blank answer")
        calls_tool = role == "assistant" and (calls or _is_react(message["content"]))
        before = "call" if calls_tool else role


def _is_react(content: str) -> bool:
    return "\nAction: " in content or "\nCommand: " in content


_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
# by role: the roles before it; "" is the start, and "call" an answer that calls a tool
_MAY_FOLLOW = {
    "system": {""},
    "user": {"", "system", "assistant", "call"},
    "assistant": {"user", "tool"},
    "tool": {"call", "tool"},
    "text": {""},
}
_UNEXPECTED = {
    "system": "a system message after the first",
    "user": "a question instead of a tool's result",
    "assistant": "an answer without a question",
    "tool": "a tool's result without a call",
    "text": "plain text mixed with messages",
}
