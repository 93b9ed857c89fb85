"""The one client: streams, whole answers, interruptions and explained errors."""

from dataclasses import asdict
from pathlib import Path

import openai
import pytest

from fake_endpoint import FakeEndpoint
from snaketune.client.answer import GenerationSettings, Step
from snaketune.client.chat_client import ChatClient
from snaketune.core.errors import UserError

PROMPT = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture
def endpoint():
    with FakeEndpoint(reply=lambda *_: ["I ", "am ", "Ada."]).running() as running:
        yield running


@pytest.fixture
def make_client(endpoint):
    def make(name="tuned", log=None, **settings):
        client = openai.OpenAI(base_url=endpoint.url, api_key="none", max_retries=0)
        return ChatClient(client, name, GenerationSettings(**settings), log=log)

    return make


def test_answer_streams_and_has_figures(make_client):
    client = make_client()
    assert list(client.stream(PROMPT)) == ["I ", "am ", "Ada."]
    assert client.answer.wall_seconds > 0
    figures = asdict(client.answer) | {"wall_seconds": 0}
    assert figures == {
        "text": "I am Ada.",
        "finish_reason": "stop",
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "wall_seconds": 0,
        "left_out": 0,
    }


def test_complete_returns_the_whole_answer(make_client):
    assert make_client(max_new_tokens=2).complete(PROMPT).text == "I am "


def test_closed_stream_keeps_its_text(make_client):
    client = make_client()
    pieces = client.stream(PROMPT)
    next(pieces)
    pieces.close()
    assert (client.answer.text, client.answer.finish_reason) == ("I ", None)


def test_lone_surrogates_are_replaced(make_client, endpoint):
    endpoint.reply = lambda *_: ["half \ud800."]
    assert make_client().complete(PROMPT).text == "half ?."


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((503, "loading"), "tuned is busy (loading)."),
        ((400, "\x1b[31mtoo long"), "tuned refused the request (400): ␛[31mtoo long"),
    ],
)
def test_refusal_is_explained(make_client, endpoint, refusal, message):
    endpoint.refuses = refusal
    with pytest.raises(UserError) as raised:
        make_client().complete(PROMPT)
    assert str(raised.value).startswith(message)
    assert isinstance(raised.value.__cause__, openai.APIStatusError)


def test_only_our_own_server_advises_to_build(make_client):
    with pytest.raises(UserError, match="has no model x/iter_9 ") as raised:
        make_client("x/iter_9").complete(PROMPT)
    assert "Fix" not in str(raised.value)
    with pytest.raises(UserError, match="Fix: snakemake experiments/x/adapter"):
        make_client("x/iter_9", log=Path("logs/chat.log")).complete(PROMPT)


def test_unreachable_server_comes_with_its_log(make_client, endpoint):
    endpoint.shutdown()
    endpoint.server_close()
    with pytest.raises(UserError, match=r"unreachable(?s:.)*Fix: read logs/chat\.log"):
        make_client(log=Path("logs/chat.log")).complete(PROMPT)


def test_empty_stream_is_an_error(make_client, endpoint, monkeypatch):
    monkeypatch.setattr("fake_endpoint.Routes.event", lambda *_, **__: None)
    with pytest.raises(UserError, match="empty stream"):
        make_client().complete(PROMPT)


def test_step_keeps_the_keys_of_saved_conversations():
    assert list(asdict(Step())) == ["thought", "tool", "tool_input", "result", "error", "seconds"]
