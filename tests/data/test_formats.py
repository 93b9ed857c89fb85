import pytest

from snaketune.data.formats import FORMATS, Conversation, RowError, Unusable, fill, trim
from snaketune.experiment.schema import FORMAT_NAMES


def chat(*contents, system=None):
    """Return a conversation whose turns alternate user, assistant."""
    head = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return head + [
        {"role": roles[index % 2], "content": content} for index, content in enumerate(contents)
    ]


GOOD = [
    ("assistant", {"question": "Q", "answers": ["A", "B"]}, [chat("Q", "A"), chat("Q", "B")]),
    ("oasst1", {"text": "### Human: Q### Assistant: A"}, [chat("Q", "A")]),
    ("oasst1", {"text": "### Human: Q\n### Assistant:\nA\n"}, [chat("Q", "A")]),
    (
        "oasst1",
        {"text": "### Human: 1### Assistant: 2### Human: 3### Assistant: 4### Human: 5"},
        [chat("1", "2", "3", "4", "5")],
    ),
    (
        "oasst1",
        {"text": "### Human: Q### Assistant: ### Title\n#### Human: a part\n### Humans\n&###;"},
        [chat("Q", "### Title\n#### Human: a part\n### Humans\n&###;")],
    ),
    ("oasst1", {"text": "### Human: In C#### Assistant: A"}, [chat("In C#", "A")]),
    ("alpaca", {"instruction": "I", "input": "", "output": "O"}, [chat("I", "O")]),
    ("alpaca", {"instruction": "I", "output": "O", "id": 3}, [chat("I", "O")]),
    ("alpaca", {"instruction": "I", "input": None, "output": "O"}, [chat("I", "O")]),
    ("alpaca", {"instruction": "I", "input": "M", "output": "O"}, [chat("I\nM", "O")]),
    ("openai", {"messages": chat("Q", "A", system="S")}, [chat("Q", "A", system="S")]),
    ("openai", chat("Q", "A"), [chat("Q", "A")]),
    ("openai", {"messages": [{"role": "user", "content": "Q", "name": "x"}]}, [chat("Q")]),
    ("xtuner", {"conversation": [{"input": "Q", "output": "A"}]}, [chat("Q", "A")]),
    (
        "xtuner",
        {
            "conversation": [
                {"system": "S", "input": "1", "output": "2"},
                {"input": "3", "output": "4"},
            ]
        },
        [chat("1", "2", "3", "4", system="S")],
    ),
    ("xtuner", {"conversation": [{"system": "", "input": "Q", "output": "A"}]}, [chat("Q", "A")]),
]

BAD = [
    ("assistant", {"question": "Q"}, "'answers' is missing; the row has: question"),
    ("assistant", {"question": "Q", "answers": "A"}, "'answers': expected a list, found str"),
    ("assistant", {"question": "Q", "answers": []}, "expected a list of strings, found []"),
    ("assistant", {"question": "Q", "answers": ["A", 1]}, "found ['A', 1]"),
    ("assistant", {"question": 1, "answers": ["A"]}, "'question': expected a string, found int"),
    ("oasst1", {"text": "Human: Q"}, "expected it to start with '### Human:'"),
    ("oasst1", {"text": "### Assistant: A"}, "expected it to start with '### Human:'"),
    ("oasst1", {"text": "x### Human: Q### Assistant: A"}, "expected it to start with"),
    ("oasst1", {"text": None}, "'text': expected a string, found NoneType"),
    ("alpaca", {"instruction": "I", "input": ["M"], "output": "O"}, "'input': expected a string"),
    ("alpaca", {"prompt": "I"}, "'instruction' is missing; the row has: prompt"),
    ("alpaca", {}, "'instruction' is missing; the row has: nothing"),
    ("alpaca", ["I", "O"], "expected an object with 'instruction', found list"),
    ("openai", {"messages": [{"role": "robot", "content": "x"}]}, "found 'robot'"),
    ("openai", {"messages": [{"role": "user", "content": None}]}, "'content': expected a string"),
    ("openai", {"messages": {"role": "user"}}, "'messages': expected a list, found dict"),
    ("openai", ["hello"], "expected an object with 'role', found str"),
    ("xtuner", {"conversation": [{"input": "Q"}]}, "'output' is missing"),
    ("xtuner", {"conversation": ["Q"]}, "expected an object with 'system', found str"),
    ("xtuner", {"conversation": [{"system": 3, "input": "Q", "output": "A"}]}, "'system'"),
]


@pytest.mark.parametrize(("name", "row", "conversations"), GOOD)
def test_a_row_becomes_these_conversations(name, row, conversations):
    assert [found.messages for found in FORMATS[name](row)] == conversations


@pytest.mark.parametrize(("name", "row", "words"), BAD)
def test_a_row_of_another_shape_is_told(name, row, words):
    with pytest.raises(RowError) as error:
        FORMATS[name](row)
    assert words in str(error.value)


def test_the_schema_names_exactly_the_formats_there_are():
    assert set(FORMATS) | {"auto"} == set(FORMAT_NAMES)


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


def test_without_values_a_placeholder_stays():
    assert filled_messages(chat("{{name}}"), {}) == chat("{{name}}")


def test_a_placeholder_without_a_value_is_told():
    with pytest.raises(ValueError, match=r"names \{\{nmae\}\}, but `vars` has only: name, author"):
        filled_messages(chat("{{nmae}}"), {"name": "Ada", "author": "Grace"})


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
def test_what_follows_the_last_answer_is_dropped_and_questions_in_a_row_are_joined(messages, left):
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
        (chat("Q", "A")[1:], "an answer that nobody asked for"),
        (chat("Q", "A") + chat("Q", "A")[1:], "an answer that nobody asked for"),
        (chat("Q", "A") + chat("Q", "A", system="S"), "a system message after the first"),
        ([*chat("Q", "A"), TOOL, *chat("Q", "A")[1:]], "a tool's result without a call"),
    ],
)
def test_what_makes_no_dialogue_is_left_out_with_its_reason(messages, reason):
    with pytest.raises(Unusable, match=f"^{reason}$"):
        trimmed(messages)


def test_calls_and_their_results_are_a_dialogue():
    messages = [*chat("Q"), CALL, TOOL, TOOL, *chat("Q", "A")[1:]]
    assert trimmed(messages) == messages


def test_half_a_character_is_no_text():
    with pytest.raises(RowError, match="half a character"):
        trimmed(chat("Q", "\ud83d"))
