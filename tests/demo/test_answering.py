"""An answer grows, ends, is stopped, and says why it failed."""

import itertools
import time
from functools import partial
from pathlib import Path

import pytest

from fake_demo import BASE, CALL, TUNED, calls_the_weather
from snaketune.demo import answering
from snaketune.demo.answering import Answering, explain, stream, use_tools
from snaketune.demo.conversation import Settings

QUESTION = [{"role": "user", "content": "Who are you?"}]


def until(reached, seconds=10):
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ended(given):
    until(lambda: given.done)
    return given.answer


@pytest.fixture
def ask(client):
    def ask(model=BASE, messages=QUESTION, settings=None):
        write = stream(client, model, messages, settings or Settings())
        return Answering(model, write, partial(explain, model=model, log=Path("logs/x.log")))

    return ask


def test_an_answer_grows_a_piece_at_a_time_and_counts_its_tokens(endpoint, ask):
    endpoint.reply = lambda *_: ["I ", "am ", "Ada."]
    endpoint.seconds = 0.05
    given, seen = ask(), []
    until(lambda: seen.append(given.answer) or given.done)
    texts = list(dict.fromkeys(each.text for each in seen if each.end == "writing"))
    assert {"I ", "I am "} <= set(texts)
    answer = given.answer
    assert (answer.text, answer.end, answer.tokens) == ("I am Ada.", "complete", 3)
    assert 0.05 < answer.seconds < 5  # two pauses lie between the first token and the last


def test_the_settings_are_those_that_are_sent(endpoint, ask):
    ended(ask(settings=Settings(temperature=0.5, top_p=0.9, max_new_tokens=7, seed=3, system="S")))
    [sent] = endpoint.asked
    assert sent["messages"] == [{"role": "system", "content": "S"}, *QUESTION]
    keys = ("temperature", "top_p", "max_tokens", "seed", "model")
    assert [sent[key] for key in keys] == [0.5, 0.9, 7, 3, BASE]
    ended(ask())
    assert endpoint.asked[1]["messages"] == QUESTION
    assert endpoint.asked[1]["temperature"] == 0
    assert "seed" not in endpoint.asked[1]


def test_an_answer_that_is_cut_says_so(endpoint, ask):
    endpoint.reply = lambda *_: ["a"] * 9
    answer = ended(ask(settings=Settings(max_new_tokens=4)))
    assert (answer.text, answer.end) == ("aaaa", "length")


def test_a_stopped_answer_stays_as_it_is_and_the_server_is_left(endpoint, ask):
    endpoint.reply = lambda *_: itertools.repeat("a ")
    endpoint.seconds = 0.01
    given = ask()
    until(lambda: given.answer.text)
    given.stop()
    stopped = given.answer
    assert stopped.end == "stopped"
    until(lambda: endpoint.abandoned == [BASE])
    assert given.answer == stopped


def test_an_answer_nobody_looks_at_ends(endpoint, ask, monkeypatch):
    monkeypatch.setattr(answering, "UNSEEN_SECONDS", 0.2)
    endpoint.reply = lambda *_: itertools.repeat("a ")
    endpoint.seconds = 0.01
    given = ask()
    until(lambda: endpoint.abandoned == [BASE])
    assert given.answer.end == "stopped"


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ((503, "loading"), "base-1 is busy (loading).\n  Fix: ask again"),
        ((429, "three are waiting"), "base-1 is busy (three are waiting).\n  Fix: ask again"),
        ((400, "the prompt has 9 tokens"), "base-1 refused: the prompt has 9 tokens"),
    ],
)
def test_what_the_server_refuses_is_told(endpoint, ask, refusal, told):
    endpoint.refuses = refusal
    answer = ended(ask())
    assert answer.end == "failed"
    assert answer.error.startswith(told)


def test_a_missing_model_is_told_with_what_builds_it(ask):
    answer = ended(ask("assistant/iter_9"))
    assert "there is no model assistant/iter_9" in answer.error
    assert "Fix: snakemake experiments/assistant/adapter" in answer.error


def test_a_server_that_has_ended_is_told_with_its_log(endpoint, ask):
    endpoint.shutdown()
    endpoint.server_close()
    answer = ended(ask())
    assert answer.error.startswith("the model server has ended.\n  Fix: read logs/x.log")


def test_a_server_that_ends_in_the_middle_is_told_and_the_text_stays(endpoint, ask, monkeypatch):
    def reply(*_):
        yield "I am "
        raise ConnectionAbortedError  # hangs up, without the end of the answer

    endpoint.reply = reply
    answer = ended(ask())
    assert (answer.text, answer.end) == ("I am ", "failed")
    assert answer.error.startswith("the model server has ended.")


def test_an_agents_steps_come_one_by_one(endpoint, client, made):
    endpoint.reply, endpoint.seconds = calls_the_weather, 0.01
    write = use_tools(client, TUNED, QUESTION, [], made.canned, 7)
    given, seen = Answering(TUNED, write), []
    until(lambda: seen.append(given.answer) or given.done)
    assert any(CALL.startswith(each.text) and each.text and not each.steps for each in seen)
    assert any(each.steps and each.end == "writing" for each in seen)
    answer = given.answer
    assert (answer.text, answer.end) == ("It is 4 degrees in Oslo.", "complete")
    [step] = answer.steps
    assert (step.thought, step.tool) == ("I look it up.", "Weather")
    assert (step.tool_input, step.error) == ('{"city": "Oslo"}', None)
    assert step.result.startswith("4 degrees")


def test_an_agent_without_an_answer_is_out_of_turns(endpoint, client, made):
    endpoint.reply = lambda *_: CALL
    answer = ended(Answering(TUNED, use_tools(client, TUNED, QUESTION, [], made.canned, 2)))
    assert answer.end == "turns"
    assert endpoint.asked[-1]["messages"][-1]["role"] == "user"


def test_a_stopped_agent_asks_nothing_more(endpoint, client, made):
    endpoint.reply, endpoint.seconds = (lambda *_: itertools.repeat("a ")), 0.01
    given = Answering(TUNED, use_tools(client, TUNED, QUESTION, [], made.canned, 7))
    until(lambda: given.answer.text)
    given.stop()
    until(lambda: endpoint.abandoned == [TUNED])
    assert len(endpoint.asked) == 1


def test_a_tool_without_its_key_is_told(client, monkeypatch):
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    write = use_tools(client, TUNED, QUESTION, ["google"], None, 7)
    explained = partial(explain, model=TUNED, log=Path("logs/x.log"))
    answer = ended(Answering(TUNED, write, explained))
    assert answer.end == "failed"
    assert "SERPER_API_KEY" in answer.error
