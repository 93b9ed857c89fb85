"""Formats of tables: a row has a question and an answer, or one text."""

from collections.abc import Callable
from datetime import date
from typing import Any

from snaketune.data.conversation import Conversation, RowError, UnsupportedRow, with_system
from snaketune.data.formats.format_registry import Parse, data_format
from snaketune.data.formats.message_parts import exchange, message, refuse_media
from snaketune.data.formats.row_fields import (
    day,
    field,
    items,
    optional_string,
    row_keys,
    string,
)

PAIRS = (
    ("question", "answer"),
    ("question", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("input", "output"),
)


@data_format(
    '`{"instruction": "...", "input": "...", "output": "..."}`, with `system` and `history`, or '
    "with keys ending in `_zh`",
    more_specific_than=["pair", "text"],
)
def alpaca(row: Any) -> list[Conversation]:
    suffix = "_zh" if isinstance(row, dict) and "instruction_zh" in row else ""
    question = _two_parts(row, f"instruction{suffix}", f"input{suffix}")
    refuse_media(row)
    turns = [*_history(row), (question, string(row, f"output{suffix}"))]
    messages = [part for turn in turns for part in exchange(*turn).messages]
    return [with_system(Conversation(messages), optional_string(row, "system"))]


def _two_parts(row: Any, key: str, optional_key: str) -> str:
    """Join a text and an optional one, each on a line of its own."""
    text, more = string(row, key), optional_string(row, optional_key)
    return f"{text}\n{more}" if more else text


def _history(row: Any) -> list[tuple[str, str]]:
    """The earlier turns of an Alpaca row, as LLaMA-Factory has them: (question, answer)."""
    history = row.get("history") or []
    for turn in items({"history": history}, "history"):
        texts = isinstance(turn, list) and all(isinstance(text, str) for text in turn)
        if not texts or len(turn) != 2:
            raise RowError(f"'history': expected [question, answer], found {turn!r}")
    return [(question, answer) for question, answer in history]


@data_format(
    '`{"abstract": "...", "title": "..."}`: a title for an abstract; '
    "`filter: {categories: [cs.AI], start_date: 2020-01-01}` chooses rows",
    more_specific_than=["text"],
)
def arxiv(row: Any) -> list[Conversation]:
    return [exchange(string(row, "abstract").strip(), string(row, "title").strip())]


def arxiv_filter(categories: list[str], start_date: str | None) -> Callable[[Any], bool]:
    """Make the filter of rows of the arXiv dump.

    Args:
        categories: A row must be in any of these; its own are words separated by blanks.
        start_date: Its `update_date` is this or later, as YYYY-MM-DD.
    """
    wanted, start = set(categories), start_date and date.fromisoformat(start_date)

    def keep(row: Any) -> bool:
        if wanted and not wanted & set(string(row, "categories").split()):
            return False
        return not start or day(row, "update_date") >= start

    return keep


@data_format('`{"question": "...", "answers": ["...", ...]}`; `{{name}}` is filled from `vars`')
def assistant(row: Any) -> list[Conversation]:
    question, answers = string(row, "question"), items(row, "answers")
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise RowError(f"'answers': expected a list of strings, found {answers!r}")
    return [exchange(question, answer) for answer in answers]


@data_format('`{"description": "Name: ...", "color": "#rrggbb"}`; the name is left out')
def colors(row: Any) -> list[Conversation]:
    name, colon, words = string(row, "description").partition(":")
    return [exchange((words if colon else name).strip(), string(row, "color"))]


@data_format('`{"instruction": "...", "context": "...", "response": "..."}`')
def dolly(row: Any) -> list[Conversation]:
    return [exchange(_two_parts(row, "instruction", "context"), string(row, "response"))]


@data_format(
    '`{"system_prompt": "...", "question": "...", "response": "..."}`', more_specific_than=["pair"]
)
def openorca(row: Any) -> list[Conversation]:
    answered = exchange(string(row, "question"), string(row, "response"))
    return [with_system(answered, string(row, "system_prompt"))]


@data_format(
    "question/answer (GSM8K, law), question/response (Stack Exchange), prompt/completion (Code "
    "Alpaca), prompt/response (tiny codes), input/output"
)
def pair(row: Any) -> list[Conversation]:
    for question, answer in PAIRS:
        if isinstance(row, dict) and question in row and answer in row:
            return [exchange(string(row, question), string(row, answer))]
    expected = "; ".join(f"{question}, {answer}" for question, answer in PAIRS)
    raise RowError(f"expected one of these pairs of keys: {expected}; {row_keys(row)}")


@data_format('recognised but not supported: `{"prompt": ..., "chosen": ..., "rejected": ...}`')
def preference(row: Any) -> list[Conversation]:
    """Refuse preference pairs, with what can be done instead."""
    for key in ("chosen", "rejected"):
        field(row, key, object)
    raise UnsupportedRow(
        "training on preference pairs is not supported",
        "to learn the chosen answers, map: {user: prompt, assistant: chosen}",
    )


@data_format(
    '`{"context": "CREATE ...", "question": "...", "answer": "SELECT ..."}`',
    more_specific_than=["pair"],
)
def sql(row: Any) -> list[Conversation]:
    question = f"{string(row, 'context')}\n{string(row, 'question')}"
    return [exchange(question, string(row, "answer"))]


@data_format(
    '`{"text": "..."}` or a bare string for pre-training: the loss is on all text, and long texts '
    "are split"
)
def text(row: Any) -> list[Conversation]:
    content = row if isinstance(row, str) else string(row, "text")
    return [Conversation([message("text", content)])]


def mapped(user: str, assistant: str, system: str | None = None) -> Parse:
    """Make a format for any flat table from the names of its columns."""

    def parse(row: Any) -> list[Conversation]:
        answered = exchange(string(row, user), string(row, assistant))
        return [with_system(answered, optional_string(row, system) if system else "")]

    return parse
