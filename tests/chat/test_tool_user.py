"""A model with tools in the chat: a terminal shows every step, a script gets them as JSON."""

import io
import json
import os
import re
import subprocess
import sys

import openai
import pexpect
import pytest

from fake_endpoint import FakeEndpoint
from snaketune.chat.tool_user import ToolOptions, ToolUser
from snaketune.client.answer import GenerationSettings
from snaketune.client.chat_client import ChatClient
from snaketune.core.errors import UserError

COMPUTE = 'Thought: I compute.\nAction: Arithmetic\nAction Input: {"expression": "17*23"}'
FINISH = "Thought: I know.\nFinal Answer: It is 391."


def reply(model, messages):
    last = messages[-1]["content"]
    return FINISH if last.startswith("Response:391") or "Thanks" in last else COMPUTE


@pytest.fixture(scope="module")
def endpoint():
    with FakeEndpoint(reply=reply).running() as running:
        yield running


@pytest.fixture
def user(endpoint):
    endpoint.asked.clear()
    client = openai.OpenAI(base_url=endpoint.url, api_key="none", max_retries=0)
    model = ChatClient(client, "tuned", GenerationSettings(max_new_tokens=64))
    seen = []
    user = ToolUser(model, ToolOptions(["arithmetic"], None, 7), seen.append)
    user.seen = seen
    return user


def test_answer_has_its_steps(user, endpoint):
    assert "".join(user.stream([{"role": "user", "content": "What is 17 * 23?"}])) == "It is 391."
    answer = user.answer
    assert (answer.text, answer.finished, answer.finish_reason) == ("It is 391.", True, "stop")
    assert [(step.tool, step.result) for step in answer.steps] == [("Arithmetic", "391")]
    assert answer.wall_seconds > 0
    assert [event.step.result for event in user.seen if event.step] == ["391"]
    assert endpoint.asked[0]["max_tokens"] == 64


def test_earlier_answers_are_in_react_form(user, endpoint):
    messages = [
        {"role": "user", "content": "What is 17 * 23?"},
        {"role": "assistant", "content": "It is 391."},
        {"role": "user", "content": "Thanks!"},
    ]
    assert "".join(user.stream(messages)) == "It is 391."
    expected = [
        messages[0],
        {"role": "assistant", "content": "Final Answer: It is 391."},
        messages[2],
    ]
    assert endpoint.asked[0]["messages"][1:] == expected


def test_stopped_answer_keeps_its_steps(user):
    def stop(event):
        if event.step:
            raise KeyboardInterrupt

    user._show = stop
    with pytest.raises(KeyboardInterrupt):
        list(user.stream([{"role": "user", "content": "?"}]))
    assert [step.result for step in user.answer.steps] == ["391"]
    assert user.answer.text == ""


def test_own_system_text_is_refused(user):
    with pytest.raises(UserError, match="the system text is that of the tools"):
        list(
            user.stream([{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "?"}])
        )


def program(repository, endpoint, *arguments):
    script = repository / "scripts/chat.py"
    return [sys.executable, str(script), "--url", endpoint.url, "--model", "tuned", *arguments]


def environment(repository, folder):
    secret = {"SERPER_API_KEY": ""}
    where = {"PYTHONPATH": str(repository / "scripts"), "XDG_STATE_HOME": str(folder)}
    return os.environ | where | secret


def ask(repository, endpoint, folder, *arguments):
    return subprocess.run(
        program(
            repository, endpoint, "--tools", "arithmetic", "--json", "--prompt", "?", *arguments
        ),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(repository, folder),
        check=False,
    )


def test_running_out_of_turns_is_a_failure(repository, endpoint, tmp_path):
    done = ask(repository, endpoint, tmp_path, "--max-turn", "1")
    assert done.returncode == 1 and "1 of 1 prompts have no answer" in done.stderr
    assert json.loads(done.stdout)["finish_reason"] == "max_turn"


def test_json_contains_the_steps(repository, endpoint, tmp_path):
    done = ask(repository, endpoint, tmp_path, "--base", "base", "--compare")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["answer"], result["finished"]) == ("It is 391.", True)
    assert result["steps"][0]["tool_input"] == '{"expression": "17*23"}'
    assert result["base"]["steps"][0]["result"] == "391"


def test_terminal_shows_every_step(repository, endpoint, tmp_path):
    command, *arguments = program(repository, endpoint, "--tools", "arithmetic")
    child = pexpect.spawn(
        command,
        arguments,
        cwd=tmp_path,
        env=environment(repository, tmp_path) | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"},
        timeout=30,
        encoding="utf-8",
    )
    child.logfile_read = io.StringIO()
    child.expect("Ctrl-D quits")
    child.send("What is 17 * 23?\r")
    child.expect(r"It is 391\.")  # in one piece: the turn before came word by word
    child.send("/exit\r")
    child.expect(pexpect.EOF)
    child.close()
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", child.logfile_read.getvalue())
    call = COMPUTE.replace("\n", "\r\n")
    turn = FINISH.replace("\n", "\r\n")
    assert f"{call}\r\nResult: 391\r\n{turn}\r\nIt is 391.\r\n" in shown.replace("\r\r", "\r")
    assert child.exitstatus == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tools", "google"], "SERPER_API_KEY is not set"),
        (["--tools", "arithmetic", "--seed", "1"], "leave out --temperature"),
    ],
)
def test_invalid_tools_are_refused_before_any_request(
    repository, endpoint, tmp_path, arguments, says
):
    before = len(endpoint.requests)
    done = subprocess.run(
        program(repository, endpoint, *arguments, "--prompt", "?"),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(repository, tmp_path),
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert len(endpoint.requests) == before
