"""Row formats: one small function each, from a row to conversations.

To add one, write a function here, add it to FORMATS and its name to `schema.FormatName`.
"""

import re
from collections.abc import Callable
from typing import Any

Message = dict[str, str]
Conversation = list[Message]
"""Messages with `role` (system, user, assistant) and `content`, as chat templates take them."""

# A question may end in "C#", and the mark follows at once; "#### Human:" on a line is a heading.
_OASST1_TURN = re.compile(r"(?<!\n#)(?<!\n##)### (Human|Assistant):")
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def assistant(row: Any) -> list[Conversation]:
    """Read `{"question": str, "answers": [str, ...]}`: one conversation for each answer."""
    question, answers = _text(row, "question"), _field(row, "answers", list)
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"'answers': expected a list of strings, found {answers!r}")
    return [_turn(question, answer) for answer in answers]


def oasst1(row: Any) -> list[Conversation]:
    """Read `{"text": "### Human: ...### Assistant: ..."}`; other `###` stay in the text."""
    before, *parts = _OASST1_TURN.split(_text(row, "text"))
    if before.strip() or not parts or parts[0] != "Human":
        raise ValueError("'text': expected it to start with '### Human:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [[{"role": roles[who], "content": text.strip()} for who, text in pairs]]


def alpaca(row: Any) -> list[Conversation]:
    """Read `{"instruction": str, "input": str, "output": str}`; an empty input is left out."""
    instruction, more = _text(row, "instruction"), row.get("input") or ""
    if not isinstance(more, str):
        raise ValueError(f"'input': expected a string, found {more!r}")
    question = f"{instruction}\n{more}" if more else instruction
    return [_turn(question, _text(row, "output"))]


def openai(row: Any) -> list[Conversation]:
    """Read `{"messages": [{"role": ..., "content": ...}, ...]}`, or the bare list."""
    messages = row if isinstance(row, list) else _field(row, "messages", list)
    conversation = []
    for message in messages:
        role = _text(message, "role")
        if role not in ("system", "user", "assistant"):
            raise ValueError(f"'role': expected system, user or assistant, found '{role}'")
        conversation.append({"role": role, "content": _text(message, "content")})
    return [conversation]


def xtuner(row: Any) -> list[Conversation]:
    """Read `{"conversation": [{"system": ..., "input": ..., "output": ...}, ...]}`."""
    conversation: Conversation = []
    for index, turn in enumerate(_field(row, "conversation", list)):
        system = turn.get("system") if isinstance(turn, dict) else None
        if index == 0 and system:
            conversation.append({"role": "system", "content": _text(turn, "system")})
        conversation += _turn(_text(turn, "input"), _text(turn, "output"))
    return [conversation]


FORMATS: dict[str, Callable[[Any], list[Conversation]]] = {
    "assistant": assistant,
    "oasst1": oasst1,
    "alpaca": alpaca,
    "openai": openai,
    "xtuner": xtuner,
}


def fill(conversation: Conversation, values: dict[str, str]) -> Conversation:
    """Replace `{{key}}` in every message by `values[key]`.

    Raises:
        ValueError: `values` is not empty and lacks a key that the text names.
    """
    if not values:
        return conversation

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = ", ".join(values)
            raise ValueError(f"the text names {match[0]}, but `vars` has only: {known}")
        return values[match[1]]

    return [
        {"role": message["role"], "content": _PLACEHOLDER.sub(value, message["content"])}
        for message in conversation
    ]


def trim(conversation: Conversation) -> Conversation:
    """Drop what follows the last answer; return [] if there is no answer or a blank one.

    Raises:
        ValueError: Roles do not alternate user, assistant after an optional system message.
    """
    for message in conversation:
        message["content"].encode()  # a lone surrogate is no text
    turns = (
        conversation[1:]
        if conversation[:1] and conversation[0]["role"] == "system"
        else conversation
    )
    for index, message in enumerate(turns):
        expected = ("user", "assistant")[index % 2]
        if message["role"] != expected:
            raise ValueError(f"message {index + 1}: expected {expected}, found {message['role']}")
    answered = len(turns) - len(turns) % 2
    head = conversation[: len(conversation) - len(turns)]
    if not all(message["content"].strip() for message in turns[1:answered:2]) or not answered:
        return []
    return head + turns[:answered]


def _turn(question: str, answer: str) -> Conversation:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _text(row: Any, key: str) -> str:
    return _field(row, key, str)


def _field(row: Any, key: str, kind: type) -> Any:
    """Return `row[key]`, or say which type was expected and what was found."""
    name = {"str": "a string", "list": "a list"}[kind.__name__]
    if not isinstance(row, dict):
        raise ValueError(f"expected an object with '{key}', found {type(row).__name__}")
    if key not in row:
        raise ValueError(
            f"'{key}' is missing; the row has: {', '.join(map(str, row)) or 'nothing'}"
        )
    if not isinstance(row[key], kind):
        raise ValueError(f"'{key}': expected {name}, found {type(row[key]).__name__}")
    return row[key]
