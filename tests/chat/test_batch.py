"""Prompts from scripts: files with errors, JSON output, exit status, stdout and stderr."""

import json
import subprocess
from pathlib import Path

import openai
import pytest

from fake_endpoint import FakeEndpoint
from snaketune.chat.batch import PromptResult, answer_all, read_prompts, text_prompt
from snaketune.chat.connect import other_model
from snaketune.client.answer import GenerationSettings
from snaketune.client.chat_client import ChatClient
from snaketune.core.errors import UserError


@pytest.fixture
def model(endpoint):
    """Return a function that makes a client of the endpoint."""
    endpoint.refuses = None
    endpoint.asked.clear()
    client = openai.OpenAI(base_url=endpoint.url, api_key="none", max_retries=0)
    return lambda **settings: ChatClient(client, "tuned", GenerationSettings(**settings))


@pytest.fixture(scope="module")
def chat(program, endpoint, tmp_path_factory):
    """Return a function that runs the program against the endpoint."""
    folder = tmp_path_factory.mktemp("chat")

    def chat(*arguments, **options):
        command = [*program, "--url", endpoint.url, "--model", "tuned", "--base", "base"]
        return subprocess.run(
            [*command, *arguments], cwd=folder, capture_output=True, text=True, **options
        )

    return chat


def test_prompts_become_lines_of_json(chat, endpoint):
    endpoint.refuses = None
    done = chat("--prompt", "One two", "--prompt", "\x1b[2J\x9b\nThree", "--json", "--compare")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    seconds = first.pop("wall_seconds"), first["base"].pop("wall_seconds")
    assert all(0 <= value < 5 for value in seconds)
    figures = {"finish_reason": "stop", "prompt_tokens": 2, "completion_tokens": 5}
    base = {"model": "base", "answer": "base heard: One two (1)"} | figures
    assert first == {
        "model": "tuned",
        "prompt": "One two",
        "answer": "tuned heard: One two (1)",
        **figures,
        "base": base,
    }
    assert second["answer"] == "tuned heard: \x1b[2J\x9b\nThree (1)"
    assert "\x1b" not in done.stdout + done.stderr and "\x9b" not in done.stdout


def test_lines_of_stdin_are_a_conversation(chat, endpoint):
    endpoint.refuses = None
    long = "w" * 10_000
    lines = ["hi", "", "/system Be kind", "and?", "attack", long, "/exit", "never sent"]
    done = chat(input="\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "tuned heard: hi (1)",
        "tuned heard: and? (4)",
        "␛]0;title␇␛[2Jgoneover�31mred␀?.",
        f"tuned heard: {long} (8)",
    ]
    assert done.stderr == "The system text is: Be kind\n"


def test_one_failed_prompt_does_not_stop_the_others(chat, endpoint, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("good\n\nbad\ngood again\n")
    endpoint.refuses = None
    reply, endpoint.reply = endpoint.reply, lambda model, messages: _refuse_bad(messages)
    try:
        done = chat("--file", str(file), "--json")
    finally:
        endpoint.reply = reply
    assert done.returncode == 1
    answers = [json.loads(line)["answer"] for line in done.stdout.splitlines()]
    assert answers == ["fine", None, "fine"]
    assert f"Error: {file}:3: " in done.stderr
    assert "1 of 3 prompts have no answer" in done.stderr
    assert "Traceback" not in done.stderr


def _refuse_bad(messages):
    if messages[-1]["content"] == "bad":
        raise BrokenPipeError  # the endpoint hangs up
    return "fine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json"], "--json needs prompts"),
        (["--prompt", "x", "--url", "http://127.0.0.1:9"], "no server answers at"),
    ],
)
def test_invalid_arguments_end_the_program_at_once(chat, arguments, message):
    done = chat(*arguments)
    assert done.returncode != 0
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("url", "name", "base", "message"),
    [
        (None, "tund", None, "does not serve 'tund'. Did you mean 'tuned'?"),
        (None, "tuned", "bass", "does not serve 'bass'. Did you mean 'base'?"),
        (None, None, None, "serves 2 models(?s:.)*--model 'tuned' or 'base'"),
        ("/elsewhere", "tuned", None, "is not an OpenAI-compatible endpoint"),
        ("localhost:8000", "tuned", None, "is not a URL"),
        ("http://[::1", "tuned", None, "is not a URL"),
        ("http://127.0.0.1:abc", "tuned", None, "is not a URL"),
    ],
)
def test_unknown_server_or_model_is_explained(endpoint, url, name, base, message):
    url = endpoint.url.removesuffix("/v1") + url if url and url[0] == "/" else url or endpoint.url
    with pytest.raises(UserError, match=message):
        other_model(url, name, base, GenerationSettings())


def test_only_model_of_a_server_is_the_default():
    with FakeEndpoint(["one"]).running() as endpoint:
        pair = other_model(endpoint.url.removesuffix("/v1"), None, None, GenerationSettings())
        assert (
            "".join(pair.model.stream([{"role": "user", "content": "Hm"}])) == "one heard: Hm (1)"
        )
        assert pair.base is None


def test_missing_file_is_named():
    with pytest.raises(UserError, match=r"cannot read nowhere\.txt: No such file"):
        read_prompts(Path("nowhere.txt"))


def test_settings_are_sent(model, endpoint):
    client = model(temperature=0.5, top_p=0.9, seed=3, stop=("heard", "b"), max_new_tokens=7)
    [result] = answer_all([text_prompt("Hello")], {"model": client}, "Be brief.", print)
    body = endpoint.asked[-1]
    expected = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["heard", "b"]}
    assert {key: body[key] for key in expected} == expected
    assert body["max_tokens"] == 7
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert result.values["answer"] == "tuned "


def test_unset_settings_are_not_sent(model, endpoint):
    list(answer_all([text_prompt("Hello")], {"model": model()}, None, print))
    assert not {"top_p", "seed", "stop"} & set(endpoint.asked[-1])
    assert endpoint.asked[-1]["messages"] == [{"role": "user", "content": "Hello"}]


def test_truncated_answer_has_finish_reason_length(model):
    [result] = answer_all([text_prompt("Hello")], {"model": model(max_new_tokens=2)}, None, print)
    assert (result.values["answer"], result.values["finish_reason"]) == ("tuned heard:", "length")


def test_json_lines_are_read(tmp_path):
    file = tmp_path / "prompts.jsonl"
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    rows = [{"prompt": "One\ntwo", "id": 3}, {"messages": messages}]
    file.write_text("\n\n".join(map(json.dumps, rows)) + "\r\n")
    first, second = read_prompts(file)
    assert (first.messages, first.location) == (
        [{"role": "user", "content": "One\ntwo"}],
        f"{file}:1",
    )
    assert (second.messages, second.source, second.location) == (
        messages,
        {"messages": messages},
        f"{file}:3",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "a"}\n{"prompt": ', r":2: invalid JSON: .*expected"),
        (b'{"prompt": "a"}\n\n["b"]\n', r":3: expected"),
        (b"[" * 100_000, r":1: invalid JSON"),
        (b'{"prompt": 7}', r":1: invalid `prompt`"),
        (b'{"prompt": " "}', r":1: invalid `prompt`"),
        (b'{"prompt": "a", "messages": []}', r":1: both `prompt` and `messages`"),
        (b'{"messages": []}', r":1: invalid `messages`"),
        (b'{"messages": [{"role": "assistant", "content": "x"}]}', r":1: invalid `messages`"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', r":1: invalid `messages`"),
        (b'{"prompt": "a"}\n\xff', r":2: not UTF-8"),
        (b"\n \n", "contains no prompt"),
    ],
)
def test_invalid_line_is_named(tmp_path, content, message):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_prompts(file)


def test_json_has_no_control_characters():
    nasty = {"answer": "\x1b[2J \x9b31m \x7f \u2028 \ud800 海 \n"}
    line = PromptResult(nasty, []).as_json()
    assert json.loads(line) == nasty
    assert "海" in line and line.isprintable()
    assert line.encode()
