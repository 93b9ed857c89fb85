"""What is saved is what is loaded, and nothing else is."""

import json

import pytest

from snaketune.core.errors import UserError
from snaketune.demo.conversation import (
    LIMIT_BYTES,
    Answer,
    Conversation,
    Settings,
    Step,
    Turn,
    load,
)

STEP = Step(thought="Hm", tool="T", tool_input="{}", error="no", seconds=0.5)


@pytest.fixture
def conversation():
    return Conversation(
        turns=[
            Turn(
                question="One?",
                settings=Settings(temperature=0.5, seed=3),
                answers=[
                    Answer(model="a", text="A1", tokens=2, seconds=1.5, waited_seconds=0.5),
                    Answer(model="b", text="", end="failed", error="broken"),
                ],
            ),
            Turn(
                question="Two?",
                tools=["arithmetic"],
                answers=[Answer(model="b", text="B2", steps=[STEP], end="turns")],
            ),
            Turn(question="Three?", answers=[Answer(model="a", text="A3", end="stopped")]),
        ]
    )


def test_a_saved_conversation_is_loaded_whole(conversation):
    assert load(conversation.saved()) == conversation
    assert json.loads(conversation.saved())["turns"][0]["settings"] == {
        "temperature": 0.5,
        "top_p": 1.0,
        "max_new_tokens": 256,
        "seed": 3,
        "system": "",
    }


def test_a_model_is_told_what_it_took_part_in(conversation):
    assert [each["content"] for each in conversation.messages("a")] == [
        *("One?", "A1"),
        *("Three?", "A3"),
    ]
    assert conversation.messages("b") == [
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "B2"},
    ]
    assert conversation.messages("c") == []


def changed(conversation, change):
    values = json.loads(conversation.saved())
    change(values)
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.update(format="other"), "format: Input should be 'snaketune-conversation-1'"),
        (lambda v: v["turns"][0].pop("question"), "turns.0.question: Field required"),
        (lambda v: v["turns"][1]["answers"].clear(), "turns.1.answers: "),
        (lambda v: v["turns"][1].update(answers=v["turns"][0]["answers"] * 2), "turns.1.answers: "),
        (lambda v: v["turns"][0]["answers"][0].update(text=1), "turns.0.answers.0.text: "),
        (lambda v: v["turns"][0]["answers"][0].update(seconds=-1), "turns.0.answers.0.seconds: "),
        (lambda v: v["turns"][0]["answers"][0].update(html="<b>"), "turns.0.answers.0.html: Extra"),
        (
            lambda v: v["turns"][0]["answers"][0].update(end="writing"),
            "turns.0.answers: Value error",
        ),
        (lambda v: v["turns"][0]["settings"].update(top_p=0), "turns.0.settings.top_p: "),
    ],
)
def test_another_form_is_refused_with_the_place(conversation, change, reason):
    with pytest.raises(UserError, match="^" + reason.replace(".", r"\.")):
        load(changed(conversation, change))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_what_is_no_conversation_is_refused(data):
    with pytest.raises(UserError, match=r"^the file: "):
        load(data)


def test_a_file_too_long_for_a_conversation_is_not_even_read():
    with pytest.raises(UserError, match="5,242,880 are the most"):
        load(b" " * (LIMIT_BYTES + 1))
