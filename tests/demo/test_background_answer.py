"""A background answer grows, ends, is stopped, and explains why it failed."""

import itertools
import time
from pathlib import Path

import pytest

from fake_demo import BASE, CALL, TUNED, calls_the_weather
from snaketune.client.chat_client import ChatClient
from snaketune.demo import background_answer
from snaketune.demo.background_answer import stream_answer, use_tools
from snaketune.demo.demo_conversation import DemoSettings

QUESTION = [{"role": "user", "content": "Who are you?"}]


def until(reached, seconds=10):
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ended(background):
    until(lambda: background.done)
    return background.answer


@pytest.fixture
def make_model(client):
    """Return a function that makes a client as the page does."""

    def make(name=TUNED, settings=None):
        generation = (settings or DemoSettings()).generation()
        return ChatClient(client, name, generation, log=Path("logs/x.log"))

    return make


@pytest.fixture
def ask(make_model):
    def ask(name=BASE, settings=None):
        system = settings.system if settings else ""
        return stream_answer(make_model(name, settings), QUESTION, system)

    return ask


def test_answer_grows_and_counts_its_tokens(endpoint, ask):
    endpoint.reply = lambda *_: ["I ", "am ", "Ada."]
    endpoint.seconds = 0.05
    background, seen = ask(), []
    until(lambda: seen.append(background.answer) or background.done)
    texts = list(dict.fromkeys(it.text for it in seen if it.end == "writing"))
    assert {"I ", "I am "} <= set(texts)
    answer = background.answer
    assert (answer.text, answer.end, answer.tokens) == ("I am Ada.", "complete", 3)
    assert 0.05 < answer.seconds < 5  # two pauses lie between the first token and the last


def test_settings_are_sent(endpoint, ask):
    ended(
        ask(settings=DemoSettings(temperature=0.5, top_p=0.9, max_new_tokens=7, seed=3, system="S"))
    )
    [sent] = endpoint.asked
    assert sent["messages"] == [{"role": "system", "content": "S"}, *QUESTION]
    keys = ("temperature", "top_p", "max_tokens", "seed", "model")
    assert [sent[key] for key in keys] == [0.5, 0.9, 7, 3, BASE]
    ended(ask())
    assert endpoint.asked[1]["messages"] == QUESTION
    assert endpoint.asked[1]["temperature"] == 0
    assert "seed" not in endpoint.asked[1]


def test_truncated_answer_ends_with_length(endpoint, ask):
    endpoint.reply = lambda *_: ["a"] * 9
    answer = ended(ask(settings=DemoSettings(max_new_tokens=4)))
    assert (answer.text, answer.end) == ("aaaa", "length")


def test_stopped_answer_stays_and_hangs_up(endpoint, ask):
    endpoint.reply = lambda *_: itertools.repeat("a ")
    endpoint.seconds = 0.01
    background = ask()
    until(lambda: background.answer.text)
    background.stop()
    stopped = background.answer
    assert stopped.end == "stopped"
    until(lambda: endpoint.abandoned == [BASE])
    assert background.answer == stopped


def test_unseen_answer_is_stopped(endpoint, ask, monkeypatch):
    monkeypatch.setattr(background_answer, "UNSEEN_SECONDS", 0.2)
    endpoint.reply = lambda *_: itertools.repeat("a ")
    endpoint.seconds = 0.01
    background = ask()
    until(lambda: endpoint.abandoned == [BASE])
    assert background.answer.end == "stopped"


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((503, "loading"), "base-1 is busy (loading).\n  Fix: try again"),
        ((429, "three are waiting"), "base-1 is busy (three are waiting).\n  Fix: try again"),
        (
            (400, "the prompt has 9 tokens"),
            "base-1 refused the request (400): the prompt has 9 tokens",
        ),
    ],
)
def test_refusal_is_explained(endpoint, ask, refusal, message):
    endpoint.refuses = refusal
    answer = ended(ask())
    assert answer.end == "failed"
    assert answer.error.startswith(message)


def test_missing_model_comes_with_its_target(ask):
    answer = ended(ask("assistant/iter_9"))
    assert "has no model assistant/iter_9" in answer.error
    assert "Fix: snakemake experiments/assistant/adapter" in answer.error


def test_ended_server_comes_with_its_log(endpoint, ask):
    endpoint.shutdown()
    endpoint.server_close()
    answer = ended(ask())
    assert "is unreachable" in answer.error and "Fix: read logs/x.log, then" in answer.error


def test_text_stays_when_the_server_ends(endpoint, ask, monkeypatch):
    def reply(*_):
        yield "I am "
        raise ConnectionAbortedError  # hangs up, without the end of the answer

    endpoint.reply = reply
    answer = ended(ask())
    assert (answer.text, answer.end) == ("I am ", "failed")
    assert "is unreachable" in answer.error


def test_steps_of_an_agent_arrive_one_by_one(endpoint, make_model, made):
    endpoint.reply, endpoint.seconds = calls_the_weather, 0.01
    background, seen = use_tools(make_model(), QUESTION, [], made.canned, 7), []
    until(lambda: seen.append(background.answer) or background.done)
    assert any(it.text and CALL.startswith(it.text) and not it.steps for it in seen)
    assert any(it.steps and it.end == "writing" for it in seen)
    answer = background.answer
    assert (answer.text, answer.end) == ("It is 4 degrees in Oslo.", "complete")
    [step] = answer.steps
    assert (step.thought, step.tool) == ("I look it up.", "Weather")
    assert (step.tool_input, step.error) == ('{"city": "Oslo"}', None)
    assert step.result.startswith("4 degrees")


def test_agent_without_an_answer_is_out_of_turns(endpoint, make_model, made):
    endpoint.reply = lambda *_: CALL
    answer = ended(use_tools(make_model(), QUESTION, [], made.canned, 2))
    assert answer.end == "turns"
    assert endpoint.asked[-1]["messages"][-1]["role"] == "user"


def test_stopped_agent_sends_no_further_request(endpoint, make_model, made):
    endpoint.reply, endpoint.seconds = (lambda *_: itertools.repeat("a ")), 0.01
    background = use_tools(make_model(), QUESTION, [], made.canned, 7)
    until(lambda: background.answer.text)
    background.stop()
    until(lambda: endpoint.abandoned == [TUNED])
    assert len(endpoint.asked) == 1


def test_missing_key_of_a_tool_is_explained(make_model, monkeypatch):
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    answer = ended(use_tools(make_model(), QUESTION, ["google"], None, 7))
    assert answer.end == "failed"
    assert "SERPER_API_KEY" in answer.error
