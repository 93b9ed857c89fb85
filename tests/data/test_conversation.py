from datetime import date

import pytest

from data.conftest import chat
from snaketune.data.conversation import Conversation, RowError, SkippedRow, fill, trim


def filled_messages(messages, values):
    return fill(Conversation(messages), values).messages


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("I'm {{name}}.", "I'm Ada."),
        ("{{ name }} of {{author}}, {{name}}", "Ada of Grace, Ada"),
        ("{name} {{}} {{a b}}", "{name} {{}} {{a b}}"),
    ],
)
def test_placeholders_are_filled_in_every_message(text, filled):
    values = {"name": "Ada", "author": "Grace"}
    assert filled_messages(chat(text, text), values) == chat(filled, filled)


def test_a_value_is_put_in_as_it_is():
    assert filled_messages(chat("{{a}}"), {"a": r"\1 {{b}}", "b": "x"}) == chat(r"\1 {{b}}")


def test_placeholder_without_value_is_an_error():
    with pytest.raises(
        ValueError, match=r"contains \{\{nmae\}\}, but `vars` has only: name, author"
    ):
        filled_messages(chat("{{nmae}}"), {"name": "Ada", "author": "Grace"})
    with pytest.raises(RowError, match=r"contains \{\{name\}\}, but no `vars` are set") as error:
        filled_messages(chat("{{name}}"), {})
    assert "vars: {name: Ada}" in error.value.fix


def trimmed(messages):
    return trim(Conversation(messages)).messages


@pytest.mark.parametrize(
    ("messages", "left"),
    [
        (chat("Q", "A"), chat("Q", "A")),
        (chat("Q", "A", "Q2"), chat("Q", "A")),
        (chat("Q", "A", "Q2", system="S"), chat("Q", "A", system="S")),
        (chat("Q", " A \n"), chat("Q", " A \n")),
        (chat("1")[:1] + chat("2", "A"), chat("1\n2", "A")),
    ],
)
def test_text_after_the_last_answer_is_dropped(messages, left):
    assert trimmed(messages) == left


CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
TOOL = {"role": "tool", "content": "1"}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (chat("Q"), "no answer to learn from"),
        (chat("Q", system="S"), "no answer to learn from"),
        (chat(system="S"), "no answer to learn from"),
        ([], "no answer to learn from"),
        (chat("Q", " \n"), "a blank answer"),
        (chat("Q", "A", "Q2", ""), "a blank answer"),
        (chat("Q", "", "Q2", "A"), "a blank answer"),
        (chat("Q", "A")[1:], "an answer without a question"),
        (chat("Q", "A") + chat("Q", "A")[1:], "an answer without a question"),
        (chat("Q", "A") + chat("Q", "A", system="S"), "a system message after the first"),
        ([*chat("Q", "A"), TOOL, *chat("Q", "A")[1:]], "a tool's result without a call"),
    ],
)
def test_what_makes_no_dialogue_is_left_out_with_its_reason(messages, reason):
    with pytest.raises(SkippedRow, match=f"^{reason}$"):
        trimmed(messages)


def test_calls_and_their_results_are_a_dialogue():
    messages = [*chat("Q"), CALL, TOOL, TOOL, *chat("Q", "A")[1:]]
    assert trimmed(messages) == messages


def test_a_question_that_reads_like_a_call_is_a_question():
    messages = chat("Explain:\nAction: find", "It names a tool.")
    assert trimmed(messages) == messages


HALF = "\ud83d"


@pytest.mark.parametrize(
    "conversation",
    [
        Conversation(chat("Q", HALF)),
        Conversation([*chat("Q"), CALL | {"tool_calls": [{"function": {"name": HALF}}]}]),
        Conversation(chat("Q", "A"), [{"name": "f", "description": HALF}]),
    ],
)
def test_lone_surrogate_is_an_error(conversation):
    with pytest.raises(RowError, match=r"contains '\\ud83d', half a character"):
        trim(conversation)


def test_a_call_is_what_json_can_hold():
    with pytest.raises(RowError, match="date is not JSON serializable"):
        trim(Conversation(chat("Q", "A"), [{"name": "f", "since": date(2020, 1, 1)}]))


def test_a_mistake_can_be_printed_whatever_the_row_holds():
    assert str(RowError(f"found '{HALF}', not '天'")) == r"found '\ud83d', not '天'"
