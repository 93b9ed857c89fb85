"""The page in Streamlit's own AppTest: prompts, answers, settings, tools, files and errors."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from fake_demo import BASE, TUNED, calls_the_weather
from snaketune.client.chat_client import ChatClient
from snaketune.demo import demo_page, setup
from snaketune.demo.background_answer import BackgroundAnswer
from snaketune.demo.demo_conversation import DemoConversation, DemoTurn
from snaketune.tracking import agent_traces

PAGE = Path(demo_page.__file__).with_name("streamlit_main.py")


@pytest.fixture
def page(made):
    """The page as it is when it is opened."""
    setup.use(made)
    return AppTest.from_file(str(PAGE), default_timeout=20).run()


def ask(page, question="Who are you?"):
    page.chat_input[0].set_value(question).run()
    assert not page.exception
    return page.session_state.conversation.turns[-1]


def columns(page):
    """Return what stands in the columns below the last question, as text."""
    return [
        "\n".join(element.value for element in column if hasattr(element, "value"))
        for column in page.main.columns[-2:]
    ]


def texts(page):
    return "\n".join(str(element.value) for element in page.main if hasattr(element, "value"))


def load(page, data):
    page.file_uploader[0].upload("saved.json", data, "application/json").run()
    assert not page.exception


def test_two_models_answer_side_by_side(page, endpoint):
    turn = ask(page)
    left, right = columns(page)
    assert f"{BASE} heard: Who are you? (1)" in left.replace("\\", "")
    assert f"{TUNED} heard: Who are you? (1)" in right
    assert "6 tokens · " in left and " s" in left
    assert [answer.model for answer in turn.answers] == [BASE, TUNED]
    assert sorted(element["model"] for element in endpoint.asked) == [TUNED, BASE]


def test_each_model_remembers_its_own_answers(page, endpoint):
    ask(page, "One?")
    ask(page, "Two?")
    messages = {body["model"]: body["messages"] for body in endpoint.asked[2:]}
    assert [message["content"] for message in messages[TUNED]] == [
        "One?",
        f"{TUNED} heard: One? (1)",
        "Two?",
    ]
    assert messages[BASE][1]["content"] == f"{BASE} heard: One? (1)"


def test_one_model_answers_alone(page, endpoint):
    page.selectbox(key="two").set_value("").run()
    page.selectbox(key="one").set_value(f"{TUNED}/iter_5").run()
    ask(page)
    assert [element["model"] for element in endpoint.asked] == [f"{TUNED}/iter_5"]


def test_settings_are_sent_and_kept_with_the_turn(page, endpoint):
    page.slider(key="temperature").set_value(0.7).run()
    page.slider(key="top_p").set_value(0.9)
    page.number_input(key="seed").set_value(5)
    page.number_input(key="max_new_tokens").set_value(3)
    page.text_area(key="system").set_value("Be short.")
    turn = ask(page)
    for sent in endpoint.asked:
        assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0.7, 0.9, 5)
        assert sent["max_tokens"] == 3
        assert sent["messages"][0] == {"role": "system", "content": "Be short."}
    assert turn.settings.model_dump() == {
        "temperature": 0.7,
        "top_p": 0.9,
        "max_new_tokens": 3,
        "seed": 5,
        "system": "Be short.",
    }
    assert all("cut off at max new tokens" in column for column in columns(page))


def test_suggested_prompt_is_sent_with_a_click(page, endpoint):
    page.button(key="prompt-0").click().run()
    assert [element["messages"][0]["content"] for element in endpoint.asked] == ["Who are you?"] * 2
    assert not [element for element in page.button if element.key == "prompt-0"]


def test_tool_calls_are_shown_step_by_step(page, endpoint):
    endpoint.reply = calls_the_weather
    page.multiselect(key="tools").set_value(["canned"]).run()
    turn = ask(page, "How is the weather in Oslo?")
    assert turn.settings is None and turn.tools == ["canned"]
    for column in columns(page):
        order = ("I look it up", '{"city": "Oslo"}', "4 degrees, <b>rain</b> ![](", "It is 4 degr")
        assert [column.find(part) for part in order] == sorted(column.find(p) for p in order)
        assert all(part in column for part in order)
    assert {element.label for element in page.expander} == {"1\\. Weather · 0.0 s"}


def test_failed_tool_is_shown_with_its_error(page, endpoint):
    endpoint.reply = lambda *_: 'Action: Weather\nAction Input: {"city": "Rome"}'
    page.multiselect(key="tools").set_value(["canned"]).run()
    page.number_input(key="max_turn").set_value(2)
    ask(page, "How is the weather in Rome?")
    for column in columns(page):
        assert "Error" in column and "knows nothing about" in column
        assert "out of turns" in column


def test_python_is_offered_only_with_its_option(page, made, endpoint):
    assert "python" not in page.multiselect(key="tools").options
    page.session_state.tools = ["python"]  # as a forged message would have it
    turn = ask(page)
    assert turn.tools == []
    setup.use(replace(made, tools=("arithmetic", "python")))
    with_python = AppTest.from_file(str(PAGE), default_timeout=20).run()
    assert "python" in with_python.multiselect(key="tools").options


def test_conversation_is_saved_and_loaded(page, made):
    endings = [ask(page, "One?"), ask(page, "Two?")]
    saved = page.session_state.conversation.saved()
    page.button[0].click().run()
    assert page.session_state.conversation.turns == []
    page.selectbox(key="two").set_value("").run()
    load(page, saved)
    assert page.session_state.conversation.turns == endings
    assert (page.session_state.one, page.session_state.two) == (BASE, TUNED)
    assert "heard: Two?" in columns(page)[1]


@pytest.mark.parametrize("data", [b"{", b'{"turns": [{"question": "One?"}]}'])
def test_broken_file_is_refused_and_nothing_is_lost(page, data):
    before = ask(page)
    load(page, data)
    [error] = page.error
    assert "saved\\.json was not loaded" in error.value
    assert ("Invalid JSON" if data == b"{" else "turns\\.0\\.answers") in error.value
    assert page.session_state.conversation.turns == [before]


def test_loaded_conversation_is_never_html_or_a_picture(page):
    nasty = "<script>alert(1)</script> <img src=x> ![p](http://127.0.0.1:9/t.png)"
    answer = {"model": nasty, "text": nasty, "error": nasty, "end": "failed"}
    answer["steps"] = [dict.fromkeys(("thought", "tool", "tool_input", "result"), nasty)]
    turn = {"question": nasty, "tools": [nasty], "answers": [answer]}
    load(page, json.dumps({"turns": [turn]}).encode())
    assert "script" in texts(page)
    shown = [*page.markdown, *page.caption, *page.error]
    assert len(shown) > 5
    assert not any(getattr(element.proto, "allow_html", False) for element in shown)
    readable = [element.value for element in shown] + [element.label for element in page.expander]
    assert not [text for text in readable if "![p](" in text]
    [styles] = page.get("html")  # our own style sheet is the only HTML there is
    assert "alert" not in styles.proto.body


def test_answers_of_unserved_models_are_shown(page):
    turn = {"question": "One?", "answers": [{"model": "gone", "text": "I was here."}]}
    load(page, json.dumps({"turns": [turn]}).encode())
    assert "I was here." in texts(page)
    assert [answer.model for answer in ask(page).answers] == [BASE, TUNED]


def test_reports_are_linked_or_come_with_their_command(page, made):
    assert not page.get("link_button")
    assert [element.value for element in page.sidebar.code] == [
        f"snakemake experiments/{TUNED}/data/report.html",
        f"snakemake experiments/{TUNED}/eval/report.html",
    ]
    report = made.experiments / TUNED / "eval/report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<h1>Better</h1>")
    page.run()
    [link] = page.get("link_button")
    assert link.proto.url == f"/reports/{TUNED}/eval.html"
    [command] = page.sidebar.code
    assert "data/report.html" in command.value


def test_one_failed_model_does_not_stop_the_other(page, endpoint):
    endpoint.models = [TUNED]
    base, tuned = ask(page).answers
    assert (base.end, tuned.end) == ("failed", "complete")
    assert "has no model base\\-1" in page.error[0].value
    after = ask(page, "Again?")
    assert after.answers[1].text.endswith("(3)")


def test_busy_server_is_explained_and_can_be_retried(page, endpoint):
    endpoint.refuses = (503, "another answer is being written")
    assert {answer.end for answer in ask(page).answers} == {"failed"}
    assert "is busy" in page.error[0].value
    endpoint.refuses = None
    assert {answer.end for answer in ask(page).answers} == {"complete"}


def test_answer_as_written(page, endpoint):
    endpoint.reply = lambda *_: "a  b\n# c"
    ask(page)
    page.toggle(key="as_written").set_value(True).run()
    assert [element.value for element in page.main.code] == ["a  b\n# c"] * 2


def test_late_stop_adds_nothing(page, endpoint):
    turn = ask(page)
    at_click = "from snaketune.demo import demo_page\ndemo_page._stop()\n"
    late = AppTest.from_string(at_click, default_timeout=20)
    late.session_state.conversation = page.session_state.conversation
    late.session_state.running = []
    late.session_state.pending_turn = turn
    late.run()
    assert not late.exception
    assert late.session_state.conversation.turns == [turn]


class Clicked(Exception):
    """In the place of Streamlit's own, which ends a run where a click came."""


class State(dict):
    """A session's state in which a click comes at the use of number `at`."""

    def __init__(self, at, **values):
        super().__init__(values)
        self.left = at

    def _used(self):
        self.left -= 1
        if self.left == 0:
            raise Clicked

    def get(self, *arguments):
        self._used()
        return super().get(*arguments)

    def __getattr__(self, name):
        self._used()
        return self[name]

    def __setattr__(self, name, value):
        if name != "left":
            self._used()
            self[name] = value
        else:
            object.__setattr__(self, name, value)


def test_turn_is_kept_once_wherever_a_click_ends_the_run(monkeypatch, client):
    model = ChatClient(client, "m")
    background = BackgroundAnswer(model, lambda answer: answer.finish())
    while not background.done:
        pass
    for at in range(1, 9):
        pending = DemoTurn.model_construct(question="?", settings=None, tools=[], answers=[])
        state = State(at, conversation=DemoConversation(), running=[background])
        state["pending_turn"] = pending
        monkeypatch.setattr(demo_page.st, "session_state", state)
        with contextlib.suppress(Clicked):
            demo_page._keep()
        if state["running"]:
            demo_page._keep()
        assert len(state["conversation"].turns) == 1, at


def test_tool_use_is_traced_under_the_study(made, endpoint, monkeypatch):
    sent = []
    monkeypatch.setattr(agent_traces, "MlflowTracer", lambda study: sent.append(study) or Quiet())
    setup.use(replace(made, studies={TUNED: "persona"}))
    page = AppTest.from_file(str(PAGE), default_timeout=20).run()
    endpoint.reply = calls_the_weather
    page.multiselect(key="tools").set_value(["canned"]).run()
    turn = ask(page, "How is the weather in Oslo?")
    assert {answer.text for answer in turn.answers} == {"It is 4 degrees in Oslo."}
    assert sent == ["persona"]  # the base model belongs to none


class Quiet:
    def send(self, spans):
        pass


def test_earlier_answers_are_in_react_form_with_tools(page, endpoint):
    endpoint.reply = calls_the_weather
    page.multiselect(key="tools").set_value(["canned"]).run()
    ask(page, "How is the weather in Oslo?")
    endpoint.asked.clear()
    ask(page, "And now?")
    assert endpoint.asked[0]["messages"][1:3] == [
        {"role": "user", "content": "How is the weather in Oslo?"},
        {"role": "assistant", "content": "Final Answer: It is 4 degrees in Oslo."},
    ]
