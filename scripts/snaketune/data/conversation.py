"""What a row becomes, whatever its format: messages, completed and trimmed to what is learned."""

import json
import re
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
"""`role` (system, user, assistant, tool) and `content`; an answer may also have `tool_calls`, as
chat templates take them, and `weight`: 0 leaves it out of the loss."""


class RowError(ValueError):
    """A row that is a mistake, and stops the preparation.

    Args:
        message: What is wrong with it.
        fix: What to do about it, if that is not to correct the row or to name its format.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode())
        self.fix = fix


class UnsupportedRow(RowError):
    """A row that is well formed and cannot be trained on yet."""


class SkippedRow(Exception):
    """A row that is not used; the reason has few forms, as the report counts them."""


@dataclass
class Conversation:
    """Messages, and the functions that may be called in them (JSON schemas, or None)."""

    messages: list[Message]
    tools: list[Any] | None = None


def with_system(conversation: Conversation, system: str) -> Conversation:
    """Put a system message, if any text is given, before a question that begins a conversation."""
    if system and conversation.messages[:1] and conversation.messages[0]["role"] == "user":
        conversation.messages.insert(0, {"role": "system", "content": system})
    return conversation


def fill(conversation: Conversation, values: dict[str, str]) -> Conversation:
    """Replace `{{key}}` in every message by `values[key]`.

    Raises:
        RowError: `values` lacks a key that the text names.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = f"`vars` has only: {', '.join(values)}" if values else "no `vars` are set"
            raise RowError(
                f"the text names {match[0]}, but {known}",
                f"set it for the source, e.g. vars: {{{match[1]}: Ada}}, or correct the rows",
            )
        return values[match[1]]

    messages = [
        message | {"content": _PLACEHOLDER.sub(value, message["content"])}
        for message in conversation.messages
    ]
    return Conversation(messages, conversation.tools)


def trim(conversation: Conversation) -> Conversation:
    """Join what a user says in a row, and drop what follows the last answer.

    Raises:
        RowError: A text, a call or a tool holds half a character (a lone surrogate).
        SkippedRow: There is no answer, a blank one, or roles follow that make no dialogue.
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
    """Return a text; raise RowError if it cannot be written as UTF-8."""
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"half a character, {error.object[error.start]!a}, is no text") from error
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
        raise RowError(f"tools and calls must be what JSON can hold: {error}") from error


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
        asks_tool = role == "assistant" and (calls or _is_react(message["content"]))
        before = "call" if asks_tool else role


def _is_react(content: str) -> bool:
    return "\nAction: " in content or "\nCommand: " in content


_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_MAY_FOLLOW = {
    "system": {""},
    "user": {"", "system", "assistant", "call"},
    "assistant": {"user", "tool"},
    "tool": {"call", "tool"},
    "text": {""},
}
_UNEXPECTED = {
    "system": "a system message after the first",
    "user": "a question in place of a tool's result",
    "assistant": "an answer that nobody asked for",
    "tool": "a tool's result without a call",
    "text": "text beside messages",
}
