"""Row formats: one small function each, from a row to conversations.

To add one, write a function here, add it to FORMATS and its name to `schema.FormatName`. It may
raise `RowError` for a row of another shape, which stops the preparation, and `Unusable` for one
that is well formed and yet nothing to learn from, which is counted and left out.
"""

import ast
import json
import re
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from snaketune.data.conversation import (
    Conversation,
    Message,
    RowError,
    Unusable,
    with_system,
)

Parse = Callable[[Any], list["Conversation"]]


def alpaca(row: Any) -> list[Conversation]:
    """Read `{"instruction": str, "input": str, "output": str}`, also with keys ending in _zh."""
    suffix = "_zh" if isinstance(row, dict) and "instruction_zh" in row else ""
    instruction, more = _text(row, f"instruction{suffix}"), _optional(row, f"input{suffix}")
    question = f"{instruction}\n{more}" if more else instruction
    return [_turn(question, _text(row, f"output{suffix}"))]


def arxiv(row: Any) -> list[Conversation]:
    """Read `{"abstract": str, "title": str}`: a title for an abstract."""
    return [_turn(_text(row, "abstract").strip(), _text(row, "title").strip())]


def assistant(row: Any) -> list[Conversation]:
    """Read `{"question": str, "answers": [str, ...]}`: one conversation for each answer."""
    question, answers = _text(row, "question"), _list(row, "answers")
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise RowError(f"'answers': expected a list of strings, found {answers!r}")
    return [_turn(question, answer) for answer in answers]


def colors(row: Any) -> list[Conversation]:
    """Read `{"description": "Name: words", "color": "#rrggbb"}`; the name is left out."""
    name, colon, words = _text(row, "description").partition(":")
    return [_turn((words if colon else name).strip(), _text(row, "color"))]


def dolly(row: Any) -> list[Conversation]:
    """Read `{"instruction": str, "context": str, "response": str}`."""
    instruction, context = _text(row, "instruction"), _optional(row, "context")
    question = f"{instruction}\n{context}" if context else instruction
    return [_turn(question, _text(row, "response"))]


def llava(row: Any) -> list[Conversation]:
    """Check `{"image": str, "conversations": [{"from": ..., "value": "<image>..."}, ...]}`."""
    _text(row, "image")
    [conversation] = sharegpt(row)
    images = sum(message["content"].count("<image>") for message in conversation.messages)
    if images != 1:
        raise RowError(f"expected <image> once, as there is one 'image'; found it {images} times")
    raise RowError(
        "the row is well formed, and rows with images cannot be trained on yet; "
        "format: sharegpt trains on their text alone"
    )


def moss(row: Any) -> list[Conversation]:
    """Read MOSS-003 rows with plugins: what a plugin answers is a tool's message."""
    messages = [_message("system", _text(row, "meta_instruction").strip())]
    for turn in _field(row, "chat", dict).values():
        thought, command, result = (
            _untagged(_optional(turn, key))
            for key in ("Inner Thoughts", "Commands", "Tool Responses")
        )
        messages.append(_message("user", _untagged(_text(turn, "Human"))))
        if command and command != "None":
            messages.append(_message("assistant", f"Thought: {thought}\nCommand: {command}"))
            messages.append(_message("tool", result))
        messages.append(_message("assistant", _untagged(_text(turn, "MOSS"))))
    return [Conversation(messages)]


def msagent(row: Any) -> list[Conversation]:
    """Read MSAgent-Bench rows as ReAct: Thought, Action, Action Input, Response, Final Answer."""
    turns = row.get("conversations") if isinstance(row, dict) else None
    if isinstance(turns, str):
        row = {"conversations": _literal(turns)}
    messages: list[Message] = []
    for turn in _list(row, "conversations"):
        role, value = _text(turn, "from"), _text(turn, "value")
        if role == "assistant":
            messages += _react(value)
        else:
            messages.append(_message(_role(role), value))
    return [Conversation(messages)]


def oasst1(row: Any) -> list[Conversation]:
    """Read `{"text": "### Human: ...### Assistant: ..."}`; other `###` stay in the text."""
    before, *parts = _OASST1_TURN.split(_text(row, "text"))
    if before.strip() or not parts or parts[0] != "Human":
        raise RowError("'text': expected it to start with '### Human:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [Conversation([_message(roles[who], text.strip()) for who, text in pairs])]


def oasst1_tree(row: Any) -> list[Conversation]:
    """Read an exported message tree: the best-ranked reply at every step."""
    messages, node = [], _field(row, "prompt", dict)
    while node:
        messages.append(_message(_role(_text(node, "role")), _text(node, "text")))
        replies = [reply for reply in node.get("replies") or [] if not reply.get("deleted")]
        node = min(replies, key=_rank, default=None)
    return [Conversation(messages)]


def oasst1_tree_all(row: Any) -> list[Conversation]:
    """Read an exported message tree: one conversation for each path that ends with an answer."""

    def paths(node: dict[str, Any]) -> Iterable[list[Message]]:
        own = _message(_role(_text(node, "role")), _text(node, "text"))
        below = [
            [own, *path]
            for reply in sorted(node.get("replies") or [], key=_rank)
            if not reply.get("deleted")
            for path in paths(reply)
        ]
        return below or [[own]]

    return [Conversation(path) for path in paths(_field(row, "prompt", dict)) if len(path) > 1]


def openai(row: Any) -> list[Conversation]:
    """Read `{"messages": [{"role": ..., "content": ...}, ...]}`, or the bare list.

    Also with `tools` (or the older `functions`), `tool_calls`, content in parts, the key
    `conversation` (Agent-FLAN), and `loss` or `loss_weight` of single answers.
    """
    if isinstance(row, list):
        row = {"messages": row}
    key = "messages" if "messages" in _object(row, "messages") else "conversation"
    items = _list(row, "messages" if key not in row else key)
    tools = row.get("tools") or row.get("functions") or None
    return [Conversation([_openai_message(item) for item in items], _parsed(tools, "tools"))]


def openorca(row: Any) -> list[Conversation]:
    """Read `{"system_prompt": str, "question": str, "response": str}`."""
    turn = _turn(_text(row, "question"), _text(row, "response"))
    return [with_system(turn, _text(row, "system_prompt"))]


def pair(row: Any) -> list[Conversation]:
    """Read a question and its answer under whichever two names of PAIRS the row has."""
    for asked, answered in PAIRS:
        if isinstance(row, dict) and asked in row and answered in row:
            return [_turn(_text(row, asked), _text(row, answered))]
    wanted = "; ".join(f"{asked}, {answered}" for asked, answered in PAIRS)
    raise RowError(f"expected one of these pairs of keys: {wanted}; {_what_it_has(row)}")


def preference(row: Any) -> list[Conversation]:
    """Refuse `{"prompt": ..., "chosen": ..., "rejected": ...}`, saying what to do."""
    for key in ("chosen", "rejected"):
        _field(row, key, object)
    raise RowError(
        "a preference pair; training on preferences is not supported. To learn the chosen "
        "answers: map: {user: prompt, assistant: chosen}"
    )


def sharegpt(row: Any) -> list[Conversation]:
    """Read `{"conversations": [{"from": ..., "value": ...}, ...]}`, with function calls."""
    messages: list[Message] = []
    for turn in _list(row, "conversations"):
        role, value = _text(turn, "from"), _text(turn, "value")
        if role == "function_call":
            calls = _calls(_parsed(value, "value"))
            messages.append(_message("assistant", "") | {"tool_calls": calls})
        else:
            messages.append(_message(_role(role), value))
    conversation = Conversation(messages, _parsed(row.get("tools") or None, "tools"))
    return [with_system(conversation, _optional(row, "system"))]


def sql(row: Any) -> list[Conversation]:
    """Read `{"context": str, "question": str, "answer": str}`: tables, question, query."""
    question = f"{_text(row, 'context')}\n{_text(row, 'question')}"
    return [_turn(question, _text(row, "answer"))]


def text(row: Any) -> list[Conversation]:
    """Read `{"text": str}`, or a bare string, for pre-training: all of it is learned."""
    content = row if isinstance(row, str) else _text(row, "text")
    return [Conversation([_message("text", content)])]


def xtuner(row: Any) -> list[Conversation]:
    """Read `{"conversation": [{"system": ..., "input": ..., "output": ...}, ...]}`."""
    messages: list[Message] = []
    for index, turn in enumerate(_list(row, "conversation")):
        system = _optional(turn, "system") if index == 0 else ""
        messages += [_message("system", system)] if system else []
        messages += _turn(_text(turn, "input"), _text(turn, "output")).messages
        if turn.get("output_with_loss") is False:
            messages[-1]["weight"] = 0.0
    return [Conversation(messages)]


FORMATS: dict[str, Parse] = {
    "alpaca": alpaca,
    "arxiv": arxiv,
    "assistant": assistant,
    "colors": colors,
    "dolly": dolly,
    "llava": llava,
    "moss": moss,
    "msagent": msagent,
    "oasst1": oasst1,
    "oasst1_tree": oasst1_tree,
    "oasst1_tree_all": oasst1_tree_all,
    "openai": openai,
    "openorca": openorca,
    "pair": pair,
    "preference": preference,
    "sharegpt": sharegpt,
    "sql": sql,
    "text": text,
    "xtuner": xtuner,
}

PAIRS = (
    ("question", "answer"),
    ("question", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("input", "output"),
)

_IMPLIED = {
    "alpaca": {"pair"},
    "sql": {"pair"},
    "openorca": {"pair"},
    "oasst1": {"text"},
    "llava": {"sharegpt"},
    "oasst1_tree": {"oasst1_tree_all"},
    "arxiv": {"text"},
}
"""Formats that also fit whatever fits the key, and mean less."""

_OASST1_TURN = re.compile(r"(?<!\n#)(?<!\n##)### (Human|Assistant):")
"""A question may end in "C#", and the mark follows at once; "#### Human:" is a heading."""

_TAG = re.compile(r"^<\|[\w ]+\|>:?\s*|<eo\w+>\s*$")
_THINK = re.compile(r"<\|startofthink\|>\s*```(?:JSON)?(.*?)```\s*<\|endofthink\|>", re.DOTALL)
_EXEC = re.compile(
    r"<\|startofexec\|>\s*(?:```(?:JSON)?)?(.*?)(?:```)?\s*<\|endofexec\|>", re.DOTALL
)
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


def mapped(columns: dict[str, str]) -> Parse:
    """Return a format for any flat table: `columns` names those of system, user and assistant."""

    def parse(row: Any) -> list[Conversation]:
        turn = _turn(_text(row, columns["user"]), _text(row, columns["assistant"]))
        system = _optional(row, columns["system"]) if "system" in columns else ""
        return [with_system(turn, system)]

    return parse


def recognise(rows: Iterable[Any]) -> list[str]:
    """Return the formats that all of some rows are in; one, if there is no doubt."""
    fitting = set(FORMATS)
    for row in rows:
        fitting &= {name for name in fitting if _fits(name, row)}
    weaker = set().union(*(_IMPLIED.get(name, set()) for name in fitting))
    return sorted(fitting - weaker)


def arxiv_filter(categories: list[str], start_date: str | None) -> Callable[[Any], bool]:
    """Return whether a row of the arXiv dump is wanted.

    Args:
        categories: Any of these must be among its `categories`, words with blanks between.
        start_date: Its `update_date` is this or later, as YYYY-MM-DD.
    """
    wanted, start = set(categories), start_date and date.fromisoformat(start_date)

    def keep(row: Any) -> bool:
        if wanted and not wanted & set(_text(row, "categories").split()):
            return False
        return not start or date.fromisoformat(_text(row, "update_date")) >= start

    return keep


def _fits(name: str, row: Any) -> bool:
    if name == "preference":
        return isinstance(row, dict) and {"chosen", "rejected"} <= row.keys()
    if name == "llava":
        return isinstance(row, dict) and {"image", "conversations"} <= row.keys()
    if name == "msagent" and "<|startofthink|>" not in str(row):
        return False
    try:
        FORMATS[name](row)
    except (RowError, Unusable):
        return False
    return True


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _turn(question: str, answer: str) -> Conversation:
    return Conversation([_message("user", question), _message("assistant", answer)])


def _openai_message(item: Any) -> Message:
    role, content = _role(_text(item, "role")), item.get("content")
    calls = item.get("tool_calls") or item.get("function_call")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    if not isinstance(content, str) and not (content is None and calls):
        raise RowError(f"'content': expected a string, found {type(content).__name__}")
    message = _message(role, content or "")
    if calls:
        message["tool_calls"] = _calls(calls)
    weight = item.get("loss_weight", item.get("loss"))
    if weight is not None:
        message["weight"] = _weight(weight)
    return message


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if _text(part, "type") != "text":
        raise RowError(f"'content': a part of type '{part['type']}' is no text")
    return _text(part, "text")


def _weight(value: Any) -> float:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return float(value.lower() == "true")
    if isinstance(value, bool | int | float) and value >= 0:
        return float(value)
    raise RowError(f"'loss': expected true, false or a weight from 0, found {value!r}")


def _calls(calls: Any) -> list[dict[str, Any]]:
    """Return function calls in one shape: `{"type": "function", "function": {...}}`."""
    result = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, dict) else call
        name = _text(function, "name")
        given = function.get("arguments", function.get("parameters"))
        arguments = _parsed(given, "arguments") or {}
        result.append({"type": "function", "function": {"name": name, "arguments": arguments}})
    return result


def _parsed(value: Any, key: str) -> Any:
    """Return a value that may stand there as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except ValueError as error:
        raise RowError(f"'{key}': not valid JSON: {error}") from error


def _literal(text: str) -> Any:
    """Parse JSON or a Python literal; nothing is evaluated."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise RowError("'conversations': a text that is no list of messages") from error


def _react(value: str) -> list[Message]:
    """Turn an answer with calls in it into ReAct: answers, and what the tools said."""
    messages: list[Message] = []
    position = 0
    for call in _THINK.finditer(value):
        asked = _object(_parsed(call[1], "value"), "api_name")
        thought = value[position : call.start()].strip()
        action = json.dumps(asked.get("parameters") or {}, ensure_ascii=False)
        text = f"Thought: {thought}\nAction: {_text(asked, 'api_name')}\nAction Input: {action}"
        messages.append(_message("assistant", text))
        position = call.end()
        if said := _EXEC.match(
            value, position + len(value[position:]) - len(value[position:].lstrip())
        ):
            messages.append(_message("tool", f"Response: {said[1].strip()}"))
            position = said.end()
    rest = value[position:].strip()
    if rest:
        messages.append(_message("assistant", f"Final Answer: {rest}" if messages else rest))
    return messages


def _untagged(text: str) -> str:
    """Strip MOSS's own marks: `<|Human|>: ... <eoh>`."""
    return _TAG.sub("", text.strip()).strip()


def _rank(reply: dict[str, Any]) -> int:
    rank = reply.get("rank")
    return rank if isinstance(rank, int) else 10**6


def _role(name: str) -> str:
    if name not in _ROLES:
        raise RowError(f"'role': expected one of {', '.join(_ROLES)}, found '{name}'")
    return _ROLES[name]


def column(row: Any, key: str) -> Any:
    """Return what a row has under a key, of any type."""
    return _field(row, key, object)


def _text(row: Any, key: str) -> str:
    return _field(row, key, str)


def _optional(row: Any, key: str) -> str:
    """Return a text that may be missing, null or empty."""
    value = _object(row, key).get(key)
    if value is not None and not isinstance(value, str):
        raise RowError(f"'{key}': expected a string, found {type(value).__name__}")
    return value or ""


def _list(row: Any, key: str) -> list[Any]:
    return _field(row, key, list)


def _object(row: Any, key: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RowError(f"expected an object with '{key}', found {type(row).__name__}")
    return row


def _field(row: Any, key: str, kind: Any) -> Any:
    """Return `row[key]`, or say which type was expected and what was found."""
    if key not in _object(row, key):
        raise RowError(f"'{key}' is missing; {_what_it_has(row)}")
    if not isinstance(row[key], kind):
        name = {str: "a string", list: "a list", dict: "an object"}[kind]
        raise RowError(f"'{key}': expected {name}, found {type(row[key]).__name__}")
    return row[key]


def _what_it_has(row: Any) -> str:
    if not isinstance(row, dict):
        return f"found {type(row).__name__}"
    return f"the row has: {', '.join(map(str, row)) or 'nothing'}"
