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
    Unsupported,
    Unusable,
    require_text,
    with_system,
)

Parse = Callable[[Any], list["Conversation"]]


def alpaca(row: Any) -> list[Conversation]:
    """Read `{"instruction": str, "input": str, "output": str}`, also with keys ending in _zh.

    LLaMA-Factory's `system` and `history`, a list of [question, answer], go before.
    """
    suffix = "_zh" if isinstance(row, dict) and "instruction_zh" in row else ""
    instruction, more = _text(row, f"instruction{suffix}"), _optional(row, f"input{suffix}")
    question = f"{instruction}\n{more}" if more else instruction
    _refuse_media(row)
    turns = [*_history(row), (question, _text(row, f"output{suffix}"))]
    messages = [message for turn in turns for message in _turn(*turn).messages]
    return [with_system(Conversation(messages), _optional(row, "system"))]


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
    images = sum(message["content"].count("<image>") for message in _sharegpt_messages(row))
    if images != 1:
        raise RowError(f"expected <image> once, as there is one 'image'; found it {images} times")
    raise _unsupported_media("image")


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
        node = next(iter(_replies(node)), None)
    return [Conversation(messages)]


def oasst1_tree_all(row: Any) -> list[Conversation]:
    """Read an exported message tree: one conversation for each path that ends with an answer."""

    def paths(node: dict[str, Any]) -> Iterable[list[Message]]:
        own = _message(_role(_text(node, "role")), _text(node, "text"))
        below = [[own, *path] for reply in _replies(node) for path in paths(reply)]
        return below or [[own]]

    return [Conversation(path) for path in paths(_field(row, "prompt", dict)) if len(path) > 1]


def openai(row: Any) -> list[Conversation]:
    """Read `{"messages": [{"role": ..., "content": ...}, ...]}`, or the bare list.

    Also with `tools` (or the older `functions`), `tool_calls`, content in parts, the key
    `conversation` (Agent-FLAN), `weight`, `loss` or `loss_weight` of single answers, and
    InternLM2's `code_interpreter`.
    """
    if isinstance(row, list):
        row = {"messages": row}
    agent_flan = "messages" not in _object(row, "messages") and "conversation" in row
    items = _list(row, "conversation" if agent_flan else "messages")
    messages = [_openai_message(item) for item in items]
    _refuse_media(row)
    return [Conversation(messages, _tools(row))]


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
    raise RowError(f"expected one of these pairs of keys: {wanted}; {what_it_has(row)}")


def preference(row: Any) -> list[Conversation]:
    """Refuse `{"prompt": ..., "chosen": ..., "rejected": ...}`, saying what to do."""
    for key in ("chosen", "rejected"):
        _field(row, key, object)
    raise Unsupported(
        "a preference pair, and training on preferences is not supported",
        "to learn the chosen answers, map: {user: prompt, assistant: chosen}",
    )


def sharegpt(row: Any) -> list[Conversation]:
    """Read `{"conversations": [{"from": ..., "value": ...}, ...]}`, with function calls."""
    messages = _sharegpt_messages(row)
    _refuse_media(row)
    return [with_system(Conversation(messages, _tools(row)), _optional(row, "system"))]


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
        question, answer = _turn(_text(turn, "input"), _text(turn, "output")).messages
        messages += [question, _weighed(answer, turn)]
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
    "alpaca": {"pair", "text"},
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
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_WEIGHTS = ("loss_weight", "weight", "loss", "output_with_loss")
"""What an answer's weight is called: here, by OpenAI, by Agent-FLAN and by XTuner."""

_TEXT_ALONE = "leave these rows out; or, to train on their text alone, what is not text in them"
_LARGEST_WEIGHT = 3.4e38
"""Weights are stored as float32."""

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
        return not start or _day(row, "update_date") >= start

    return keep


def group_of(row: Any, key: str) -> str:
    """Return a row's value in the column that `group:` names, as text."""
    if not isinstance(row, dict) or row.get(key) is None:
        raise RowError(
            f"'{key}' is missing or null; {what_it_has(row)}",
            f"name another column than `group: {key}`, or fill it in each row",
        )
    return require_text(str(row[key]))


def what_it_has(row: Any) -> str:
    """Return what a row is, for a message: its keys, or its type."""
    if not isinstance(row, dict):
        return f"found {type(row).__name__}"
    return f"the row has: {', '.join(map(str, row)) or 'nothing'}"


def _fits(name: str, row: Any) -> bool:
    if name == "msagent" and "<|startofthink|>" not in str(row):
        return False
    try:
        FORMATS[name](row)
    except Unsupported:
        return True
    except (RowError, Unusable):
        return False
    return True


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _turn(question: str, answer: str) -> Conversation:
    return Conversation([_message("user", question), _message("assistant", answer)])


def _history(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the earlier turns of an Alpaca row: (question, answer)."""
    history = row.get("history") or []
    for turn in _list({"history": history}, "history"):
        texts = isinstance(turn, list) and all(isinstance(text, str) for text in turn)
        if not texts or len(turn) != 2:
            raise RowError(f"'history': expected [question, answer], found {turn!r}")
    return [(question, answer) for question, answer in history]


def _sharegpt_messages(row: Any) -> list[Message]:
    messages = []
    for turn in _list(row, "conversations"):
        role, value = _text(turn, "from"), _text(turn, "value")
        if role == "function_call":
            calls = _calls(_parsed(value, "value"))
            message = _message("assistant", "") | {"tool_calls": calls}
        else:
            message = _message(_role(role), value)
        messages.append(_weighed(message, turn))
    return messages


def _openai_message(item: Any) -> Message:
    role, content = _role(_text(item, "role")), item.get("content")
    calls = _calls(item.get("tool_calls") or item.get("function_call") or [])
    if code := _optional(item, "code_interpreter_call"):
        calls.append(_call("code_interpreter", {"code": code}))
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    if not isinstance(content, str) and not (content is None and calls):
        raise RowError(f"'content': expected a string, found {type(content).__name__}")
    message = _message(role, content or "")
    if calls:
        message["tool_calls"] = calls
    return _weighed(message, item)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if _text(part, "type") != "text":
        raise Unsupported(f"'content': a part of type '{part['type']}' is no text", _TEXT_ALONE)
    return _text(part, "text")


def _refuse_media(row: dict[str, Any]) -> None:
    """Raise Unsupported for a row that is about pictures, films or sounds."""
    given = next((key for key in _MEDIA if row.get(key)), None)
    if given:
        raise _unsupported_media(given)


def _unsupported_media(key: str) -> Unsupported:
    return Unsupported(
        f"'{key}': rows with pictures, films or sounds cannot be trained on yet", _TEXT_ALONE
    )


def _weighed(message: Message, given: dict[str, Any]) -> Message:
    """Return a message with the weight in the loss that its row gives it, if any."""
    key = next((key for key in _WEIGHTS if given.get(key) is not None), None)
    return message | {"weight": _weight(given, key)} if key else message


def _weight(given: dict[str, Any], key: str) -> float:
    value = given[key]
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return float(value.lower() == "true")
    if isinstance(value, bool | int | float) and 0 <= value <= _LARGEST_WEIGHT:
        return float(value)
    raise RowError(f"'{key}': expected true, false or a finite number from 0, found {value!r}")


def _tools(row: dict[str, Any]) -> list[Any] | None:
    """Return the functions that may be called; InternLM2 tells of its code interpreter apart."""
    key = next((key for key in ("tools", "functions") if row.get(key)), None)
    tools = _list({key: _parsed(row[key], key) or []}, key) if key else []
    if told := _optional(row, "code_interpreter"):
        tools = [*tools, {"name": "code_interpreter", "description": told}]
    return [_wrapped(tool) for tool in tools] or None


def _wrapped(tool: Any) -> Any:
    """Return a function as chat templates take it: `{"type": "function", "function": {...}}`."""
    bare = isinstance(tool, dict) and "name" in tool and "function" not in tool
    return {"type": "function", "function": tool} if bare else tool


def _calls(calls: Any) -> list[dict[str, Any]]:
    """Return function calls in one shape: `{"type": "function", "function": {...}}`."""
    result = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, dict) else call
        name = _text(function, "name")
        given = function.get("arguments", function.get("parameters"))
        result.append(_call(name, _parsed(given, "arguments") or {}))
    return result


def _call(name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _parsed(value: Any, key: str) -> Any:
    """Return a value that may stand there as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError) as error:
        raise RowError(f"'{key}': not valid JSON: {error}") from error


def _literal(text: str) -> Any:
    """Parse JSON or a Python literal; nothing is evaluated."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
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


def _replies(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was replied to a message of a tree and not deleted, the best first."""
    replies = _list({"replies": node.get("replies") or []}, "replies")
    kept = [reply for reply in replies if not _object(reply, "text").get("deleted")]
    return sorted(kept, key=_rank)


def _rank(reply: dict[str, Any]) -> int:
    rank = reply.get("rank")
    return rank if isinstance(rank, int) else 10**6


def _role(name: str) -> str:
    if name not in _ROLES:
        raise RowError(f"'role': expected one of {', '.join(_ROLES)}, found '{name}'")
    return _ROLES[name]


def _text(row: Any, key: str) -> str:
    return _field(row, key, str)


def _optional(row: Any, key: str) -> str:
    """Return a text that may be missing, null or empty."""
    value = _object(row, key).get(key)
    if value is not None and not isinstance(value, str):
        raise RowError(f"'{key}': expected a string, found {type(value).__name__}")
    return value or ""


def _day(row: Any, key: str) -> date:
    try:
        return date.fromisoformat(_text(row, key))
    except ValueError as error:
        raise RowError(f"'{key}': expected a day as 2020-01-31, found {row[key]!r}") from error


def _list(row: Any, key: str) -> list[Any]:
    return _field(row, key, list)


def _object(row: Any, key: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RowError(f"expected an object with '{key}', found {type(row).__name__}")
    return row


def _field(row: Any, key: str, kind: Any) -> Any:
    """Return `row[key]`, or say which type was expected and what was found."""
    if key not in _object(row, key):
        raise RowError(f"'{key}' is missing; {what_it_has(row)}")
    if not isinstance(row[key], kind):
        name = {str: "a string", list: "a list", dict: "an object"}[kind]
        raise RowError(f"'{key}': expected {name}, found {type(row[key]).__name__}")
    return row[key]
