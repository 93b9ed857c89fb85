"""Conversations are loaded as they were saved; anything else is refused."""

import json

import pytest

from snaketune.client.answer import Step
from snaketune.core.errors import UserError
from snaketune.demo.demo_conversation import (
    LIMIT_BYTES,
    DemoAnswer,
    DemoConversation,
    DemoSettings,
    DemoTurn,
    load,
)

STEP = Step(thought="Hm", tool="T", tool_input="{}", error="no", seconds=0.5)


@pytest.fixture
def conversation():
    return DemoConversation(
        turns=[
            DemoTurn(
                question="One?",
                settings=DemoSettings(temperature=0.5, seed=3),
                answers=[
                    DemoAnswer(model="a", text="A1", tokens=2, seconds=1.5, waited_seconds=0.5),
                    DemoAnswer(model="b", text="", end="failed", error="broken"),
                ],
            ),
            DemoTurn(
                question="Two?",
                tools=["arithmetic"],
                answers=[DemoAnswer(model="b", text="B2", steps=[STEP], end="turns")],
            ),
            DemoTurn(question="Three?", answers=[DemoAnswer(model="a", text="A3", end="stopped")]),
        ]
    )


def test_saved_conversation_is_loaded_unchanged(conversation):
    assert load(conversation.saved()) == conversation
    assert json.loads(conversation.saved())["turns"][0]["settings"] == {
        "temperature": 0.5,
        "top_p": 1.0,
        "max_new_tokens": 256,
        "seed": 3,
        "system": "",
    }


def test_messages_are_those_of_one_model(conversation):
    assert [message["content"] for message in conversation.messages("a")] == [
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
        (
            lambda v: v["turns"][1]["answers"][0]["steps"][0].update(html="<b>"),
            "turns.1.answers.0.steps.0.html: Unexpected",
        ),
        (
            lambda v: v["turns"][1]["answers"][0]["steps"][0].update(seconds=-1),
            "turns.1.answers.0.steps.0.seconds: ",
        ),
        (lambda v: v["turns"][0]["settings"].update(top_p=0), "turns.0.settings.top_p: "),
    ],
)
def test_invalid_value_is_refused_with_its_place(conversation, change, reason):
    with pytest.raises(UserError, match="^" + reason.replace(".", r"\.")):
        load(changed(conversation, change))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_other_files_are_refused(data):
    with pytest.raises(UserError, match=r"^the file: "):
        load(data)


def test_oversized_file_is_not_parsed():
    with pytest.raises(UserError, match="the limit is 5,242,880"):
        load(b" " * (LIMIT_BYTES + 1))


def test_file_of_an_earlier_release_is_loaded():
    saved = b"""{
  "format": "snaketune-conversation-1",
  "turns": [{"question": "Hi?", "settings": null, "tools": ["canned"], "answers": [
    {"model": "a", "text": "Yes.", "end": "complete", "error": null, "tokens": null,
     "waited_seconds": 0.2, "seconds": 1.0,
     "steps": [{"thought": "t", "tool": "T", "tool_input": "{}", "result": "r", "error": null,
                "seconds": 0.1}]}]}]}"""
    [turn] = load(saved).turns
    assert turn.answers[0].steps == [Step("t", "T", "{}", "r", None, 0.1)]
