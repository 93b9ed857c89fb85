"""The chat in a pseudo-terminal: keys go in, and what the user sees comes out."""

import json
import signal
import stat
import time
from pathlib import Path

import pytest
from prompt_toolkit.history import InMemoryHistory

from pseudo_terminal import Terminal
from snaketune.chat.line_editor import open_history

PASTE, END = "\x1b[200~", "\x1b[201~"
ALT_ENTER, CTRL_C, CTRL_D, CTRL_J, UP = "\x1b\r", "\x03", "\x04", "\n", "\x1b[A"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chat")


@pytest.fixture(scope="module")
def command(program, endpoint):
    return [*program, "--url", endpoint.url, "--model", "tuned", "--base", "base"]


@pytest.fixture(scope="module")
def started(command, folder):
    terminal = Terminal(command, folder, XDG_STATE_HOME=str(folder / "state"))
    terminal.wait_for("Ctrl-D quits.")
    terminal.until_ready()
    yield terminal
    terminal.type(CTRL_D)
    assert terminal.ends() == 0


@pytest.fixture
def chat(started, endpoint):
    """The one chat of all these tests, at the beginning of a conversation."""
    endpoint.refuses = None
    started.ask("/reset")
    started.ask("/compare off")
    started.ask("/system off")
    endpoint.asked.clear()
    endpoint.abandoned.clear()
    return started


def sent(endpoint, model="tuned"):
    """Return the messages of the last request to a model, as (role, content)."""
    bodies = [body for body in endpoint.asked if body["model"] == model]
    return [(message["role"], message["content"]) for message in bodies[-1]["messages"]]


def test_conversation_continues(chat, endpoint):
    assert "tuned heard: Hello there (1)\n" in chat.ask("Hello there")
    assert "tuned heard: And now? (3)\n" in chat.ask("And now?")
    assert sent(endpoint) == [
        ("user", "Hello there"),
        ("assistant", "tuned heard: Hello there (1)"),
        ("user", "And now?"),
    ]
    assert endpoint.asked[-1]["temperature"] == 0
    assert "tuned heard: Again (1)\n" in [chat.ask("/reset"), chat.ask("Again")][1]


@pytest.mark.parametrize(
    ("keys", "question"),
    [
        (f"one{ALT_ENTER}two{CTRL_J}  three", "one\ntwo\n  three"),
        (f"{PASTE}def f():\r\n    return 1\n\nf(){END}", "def f():\n    return 1\n\nf()"),
        ("你是谁？", "你是谁？"),
        (" /etc/hosts is what?", "/etc/hosts is what?"),
    ],
    ids=["new lines", "a paste", "Chinese", "a slash"],
)
def test_prompt_arrives_unchanged(chat, endpoint, keys, question):
    chat.ask(keys)
    assert sent(endpoint) == [("user", question)]


def test_system_text_stays_until_changed(chat, endpoint):
    assert "experiment's own" in chat.ask("/system")
    assert "Be brief." in chat.ask("/system Be brief.")
    chat.ask("Hello")
    chat.ask("/reset")
    chat.ask("Hello")
    assert sent(endpoint) == [("system", "Be brief."), ("user", "Hello")]
    assert "text is: Rhyme.\nAlways." in chat.ask(f"/system{CTRL_J}Rhyme.{CTRL_J}Always.")
    chat.ask("/system off")
    chat.ask("Hello")
    assert sent(endpoint)[0] == ("user", "Hello")


def test_each_model_remembers_only_itself(chat, endpoint):
    chat.ask("First")
    shown = chat.ask("/compare Second")
    parts = [
        "base base\n",
        "base heard: Second (1)\n",
        "tuned tuned\n",
        "tuned heard: Second (3)\n",
    ]
    assert sorted(parts, key=shown.index) == parts
    chat.ask("/compare on")
    chat.wait_for("both>")
    shown = chat.ask("Third")
    assert "base heard: Third (3)" in shown and "tuned heard: Third (5)" in shown
    own = [("user", "Second"), ("assistant", "base heard: Second (1)"), ("user", "Third")]
    assert sent(endpoint, "base") == own
    chat.ask("/compare off")
    assert "base heard" not in chat.ask("Fourth")


def test_saved_conversation_continues(chat, endpoint, folder):
    chat.ask("/system Be kind.")
    chat.ask("/compare Who?")
    assert "Saved: talk.json" in chat.ask("/save talk.json")
    saved = json.loads((folder / "talk.json").read_text())
    messages = [("system", "Be kind."), ("user", "Who?"), ("assistant", "tuned heard: Who? (2)")]
    assert [(m["role"], m["content"]) for m in saved["messages"]] == messages
    assert saved["compared"]["model"] == "base"
    chat.ask("/system off")
    chat.ask("/reset")
    assert "after 1 prompt." in chat.ask("/load talk.json")
    chat.ask("/compare Why?")
    assert sent(endpoint) == [*messages, ("user", "Why?")]
    assert sent(endpoint, "base")[2] == ("assistant", "base heard: Who? (2)")


def test_other_files_are_neither_overwritten_nor_loaded(chat, endpoint, folder):
    (folder / "study.yaml").write_text("model: tiny\n")
    (folder / "half.json").write_text('{"messages": [{"role": "user", "content": "Hm"}]}')
    (folder / "deep.json").write_text("[" * 100_000)
    for line, message in {
        "/save study.yaml": "is not a saved chat",
        "/save": "needs a file name",
        "/load half.json": "is not a saved chat",
        "/load nowhere.json": "No such file",
        "/load deep.json": "is not a saved chat",
        f"/save {'x' * 300}": "cannot write",
        "/save ~nobody_here/x": "unknown user",
    }.items():
        assert message in chat.ask(line)
    assert (folder / "study.yaml").read_text() == "model: tiny\n"
    assert "(1)" in chat.ask("Still there?")


def test_ctrl_c_stops_the_answer_and_keeps_its_text(chat, endpoint):
    chat.type("count\r")
    chat.wait_for("5 6 7 ")
    chat.type(CTRL_C)
    assert "(stopped)" in chat.until_ready()
    deadline = time.monotonic() + 10
    while not endpoint.abandoned and time.monotonic() < deadline:
        time.sleep(0.01)
    assert endpoint.abandoned == ["tuned"]  # the server hears of it, and stops too
    chat.ask("Go on")
    (_, prompt), (role, partial), _ = sent(endpoint)
    assert (prompt, role) == ("count", "assistant")
    assert partial.startswith("1 2 3 4 5 6 7 ") and partial.split()[-1] != "2999"


def test_prompt_stopped_before_any_token_is_dropped(chat, endpoint):
    chat.type("wait\r")
    chat.wait_for("⠋")
    chat.type(CTRL_C)
    assert "(stopped before the first token)" in chat.until_ready()
    chat.ask("Go on")
    assert sent(endpoint) == [("user", "Go on")]


def test_stopping_one_model_continues_with_the_other(chat, endpoint):
    chat.type("/compare count\r")
    chat.wait_for("5 6 7 ")
    chat.type(CTRL_C)
    chat.wait_for("(stopped)")
    chat.wait_for("5 6 7 ")
    chat.type(CTRL_C)
    assert "(stopped)" in chat.until_ready()


def test_typeahead_is_the_next_prompt(chat, endpoint):
    chat.type("count\r")
    chat.wait_for("5 6 ")
    chat.type("Later\r")
    chat.wait_for("40 41 ")
    assert "Later" not in chat.child.before
    chat.child.kill(signal.SIGINT)  # the keys would take back what is typed
    chat.until_ready()
    assert "tuned heard: Later (3)" in chat.until_prompt()


def test_unknown_command_is_not_sent(chat, endpoint):
    shown = chat.ask("/hepl me")
    assert "unknown command '/hepl'. Did you mean '/help'?" in shown
    assert endpoint.asked == []
    assert "/compare PROMPT" in chat.ask("/help")


def test_tab_completes_commands(chat, folder):
    chat.type("/he\t")
    chat.wait_for("lp")
    assert "Alt-Enter" in chat.ask("")
    (folder / "only_this.json").touch()
    chat.type("/load onl\t")
    chat.wait_for("y_this.json")
    assert "not a saved chat" in chat.ask("")


def test_session_continues_after_a_refusal(chat, endpoint):
    endpoint.refuses = (400, "\x1b[31mtoo long: 9000 tokens of 8192")
    shown = chat.ask("Long")
    assert "tuned refused the request (400): ␛[31mtoo long: 9000 tokens of 8192" in shown
    endpoint.refuses = None
    assert "tuned heard: Short (1)" in chat.ask("Short")


def test_broken_off_answer_is_dropped(chat, endpoint):
    assert "half \nError: the model server" in chat.ask("break")
    chat.ask("And now?")
    assert sent(endpoint) == [("user", "And now?")]


def test_lone_surrogate_in_a_saved_chat_is_replaced(chat, endpoint, folder):
    messages = [
        {"role": "user", "content": "\ud800"},
        {"role": "assistant", "content": "Hm", "id": 3},
    ]
    (folder / "half.json").write_text(json.dumps({"messages": messages}))
    chat.ask("/load half.json")
    chat.ask("So?")
    assert endpoint.asked[-1]["messages"][0]["content"] == "?"
    assert endpoint.asked[-1]["messages"][1] == {"role": "assistant", "content": "Hm"}


def test_typed_lines_stay_in_memory_without_a_home(monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", none)
    assert isinstance(open_history(), InMemoryHistory)


def test_escape_codes_never_reach_the_terminal(chat, endpoint):
    chat.type("attack\r")
    chat.wait_for("over")
    raw = chat.child.before
    shown = chat.until_ready()
    assert "␛]0;title␇␛[2Jgone" in raw
    assert shown.startswith("�31mred␀?.\n")
    assert "\x1b]" not in raw and "\x1b[2J" not in raw and "\x9b" not in shown


def test_invalid_utf8_is_replaced(chat, folder):
    chat.type(b"\xff\xfe what?\r")
    assert "tuned heard: ?? what? (1)" in chat.until_prompt()
    assert "+?? what?\n" in (folder / "state/snaketune/chat_history").read_text()


def test_only_the_owner_can_read_typed_lines(chat, folder):
    chat.ask("Remember me")
    file = folder / "state/snaketune/chat_history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "+Remember me\n" in file.read_text()
    assert "heard: Remember me (3)" in chat.ask(UP)


def test_ctrl_c_clears_the_line_and_twice_quits(command, folder, endpoint):
    chat = Terminal(command, folder, XDG_STATE_HOME=str(folder / "other"))
    chat.until_ready()
    chat.type("half a line")
    chat.wait_for("line")
    chat.type(CTRL_C)
    assert "tuned heard: whole (1)" in chat.ask("whole")
    chat.type(CTRL_C)
    assert "Ctrl-C again" in chat.until_prompt()
    chat.type(CTRL_C)
    assert chat.ends() == 0
