"""A model with MOSS's plugins in the chat, in both forms of commands: ours and MOSS's own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from fake_endpoint import FakeEndpoint, Routes
from snaketune.client.answer import GenerationSettings
from snaketune.client.chat_client import ChatClient
from snaketune.client.context import Context
from snaketune.core.errors import UserError
from snaketune.data.formats import FORMATS
from snaketune.data.named_templates import NAMED_TEMPLATES
from snaketune.moss.plugin_user import PluginUser
from snaketune.moss.plugins import declare
from snaketune.serving.artifacts import ServedModel

QUESTION, NEXT = "How much is 12 times 12?", "And doubled?"
TURN = {
    "Human": f"<|Human|>: {QUESTION}<eoh>\n",
    "Inner Thoughts": "<|Inner Thoughts|>: A product.<eot>\n",
    "Commands": '<|Commands|>: Calculate("12*12")<eoc>\n',
    "Tool Responses": "<|Results|>:\nCalculate(\"12*12\") => '144'\n<eor>\n",
    "MOSS": "<|MOSS|>: It is 144.<eom>\n",
}
SECOND = {
    "Human": f"<|Human|>: {NEXT}<eoh>\n",
    "Commands": "<|Commands|>: None<eoc>\n",
    "MOSS": "<|MOSS|>: Then 288.<eom>\n",
}
SYSTEM = declare("", ["calculate"])
ROW = {"meta_instruction": SYSTEM, "chat": {"turn_1": TURN, "turn_2": SECOND}}
COMMAND = 'Thought: A product.\nCommand: Calculate("12*12")'


def ours(model, messages):
    """Answer as a model does that has learned ROW as the data stage reads it."""
    learned = FORMATS["moss"].parse(ROW)[0].messages
    after = [message["content"] for message in learned].index(messages[-1]["content"]) + 1
    return learned[after]["content"]


class TextRoutes(Routes):
    """/v1/completions too: `reply` gets the prompt as its only message."""

    def do_POST(self):
        if self.path != "/v1/completions":
            return super().do_POST()
        body = json.loads(self.body())
        self.server.asked.append(body)
        if self.server.refuses:
            return self.json({"detail": "busy"}, 503)
        text = self.server.reply(body["model"], [{"role": "prompt", "content": body["prompt"]}])
        text = text.partition(body["stop"][-1])[0]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        about = {"id": "1", "object": "text_completion", "created": 0, "model": body["model"]}
        for piece, reason in (*((char, None) for char in text), ("", "stop")):
            choice = {"index": 0, "text": piece, "finish_reason": reason, "logprobs": None}
            self.chunk(b"data: " + json.dumps(about | {"choices": [choice]}).encode() + b"\n\n")
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")


@pytest.fixture(scope="module")
def endpoint():
    server = FakeEndpoint(reply=ours)
    server.RequestHandlerClass = TextRoutes
    with server.running() as running:
        yield running


@pytest.fixture
def make_user(endpoint):
    """Return a function that makes a model with plugins, which answers as `reply` says."""

    def make(reply=ours, context=None, enabled=("calculate",), **settings):
        endpoint.asked.clear()
        endpoint.reply = reply
        client = openai.OpenAI(base_url=endpoint.url, api_key="none", max_retries=0)
        seen = []
        model = ChatClient(client, "tuned", GenerationSettings(**settings), context)
        user = PluginUser(model, list(enabled), seen.append)
        user.seen = seen
        return user

    return make


def ask(prompt, *before):
    return [*before, {"role": "user", "content": prompt}]


def test_conversation_is_sent_as_it_was_trained(make_user, endpoint):
    user = make_user()
    learned = FORMATS["moss"].parse(ROW)[0].messages
    assert list(user.stream(ask(QUESTION))) == ["It", " is", " 144."]
    assert [body["messages"] for body in endpoint.asked] == [learned[:2], learned[:4]]
    assert [step.results for step in user.answer.steps] == ["Calculate(\"12*12\") => '144'"]
    assert (user.answer.text, user.answer.finish_reason) == ("It is 144.", "stop")
    assert user.answer.completion_tokens == len(COMMAND.split()) + 3
    assert user.seen == user.answer.steps

    before = [*ask(QUESTION), {"role": "assistant", "content": "It is 144."}]
    assert "".join(user.stream(ask(NEXT, *before))) == "Then 288."
    assert endpoint.asked[2]["messages"] == learned[:6]
    assert user.answer.steps == []


def test_only_commands_are_held_back(make_user):
    pieces = ["Tho", "ugh it rains", ", yes"]
    assert list(make_user(lambda *_: pieces).stream(ask("?"))) == ["Though it rains", ", yes"]


def test_thought_without_command_is_shown(make_user):
    user = make_user(lambda *_: "Thought: I am lost.")
    assert list(user.stream(ask("?"))) == ["Thought: I am lost."]
    assert user.answer.text == "Thought: I am lost."


def test_plugins_are_declared_in_the_users_system_text(make_user, endpoint):
    system = {"role": "system", "content": "Be brief."}
    list(make_user().stream([system, *ask(QUESTION)]))
    expected = declare("Be brief.", ["calculate"])
    assert endpoint.asked[0]["messages"][0] == {"role": "system", "content": expected}


def test_failed_command_does_not_end_the_answer(make_user):
    def reply(_, messages):
        last = messages[-1]
        return 'Command: Solve("x = 1")' if last["role"] == "user" else f"I heard {last['content']}"

    user = make_user(reply)
    assert "".join(user.stream(ask("?"))) == 'I heard Solve("x = 1") =>\nNo result.'
    assert user.answer.steps[0].errors == ['Solve("x = 1"): plugin not enabled']


def test_command_turns_are_limited(make_user, endpoint):
    user = make_user(lambda *_: COMMAND)
    assert list(user.stream(ask("?"))) == [COMMAND]
    assert (len(endpoint.asked), len(user.answer.steps)) == (5, 4)


def test_truncated_commands_are_not_executed(make_user):
    user = make_user(lambda *_: 'Command: Calculate("1"), Calculate("2")', max_new_tokens=2)
    assert list(user.stream(ask("?"))) == ['Command: Calculate("1"),']
    assert (user.answer.steps, user.answer.finish_reason) == ([], "length")


# --- MOSS's own marks ----------------------------------------------------------------------------


@pytest.fixture
def context(bases, tmp_path):
    """A model with XTuner's template of MOSS, and a system text of its own."""
    shutil.copytree(bases["chatml"], tmp_path / "moss")
    (tmp_path / "moss" / "chat_template.jinja").write_text(NAMED_TEMPLATES["moss_sft"].jinja)
    return Context(ServedModel("tuned", "base", 4000, "I am it.", tmp_path / "moss"))


def marked(model, messages):
    """Answer as a model that has learned a turn as one text, to the mark that ends its part."""
    [*_, last] = messages
    if last["role"] == "prompt":
        return "More.\n" + TURN["MOSS"] + "<|Human|>: more"
    return TURN["Inner Thoughts"] + TURN["Commands"]


def test_marked_answer_continues_after_the_results(make_user, endpoint, context):
    user = make_user(marked, context)
    assert "".join(user.stream(ask(QUESTION))) == "It is 144."
    first, second = endpoint.asked
    assert first["stop"] == ["<eoc>"]
    system = declare("I am it.", ["calculate"])
    assert second["prompt"] == f"{system}\n" + "".join(list(TURN.values())[:4])
    assert second["stop"] == ["<eom>"]
    assert [step.results for step in user.answer.steps] == ["Calculate(\"12*12\") => '144'"]
    assert user.answer.finish_reason == "stop"

    before = [*ask(QUESTION), {"role": "assistant", "content": "It is 144."}]
    list(user.stream(ask(NEXT, *before)))
    whole = "".join(list(TURN.values())[1:4]) + "More.\n<|MOSS|>: It is 144."
    assert endpoint.asked[2]["messages"][2] == {"role": "assistant", "content": whole}


def test_no_command_has_the_result_none(make_user, endpoint, context):
    none = "<|Inner Thoughts|>: Easy.<eot>\n<|Commands|>: None<eoc>\n"
    user = make_user(lambda _, m: TURN["MOSS"] if m[0]["role"] == "prompt" else none, context)
    assert "".join(user.stream(ask("?"))) == "It is 144."
    assert endpoint.asked[1]["prompt"].endswith(f"{none}<|Results|>:\nNone\n<eor>\n")
    assert (user.answer.steps, user.seen) == ([], [])


def test_bos_token_is_not_sent_twice(make_user, endpoint, context, monkeypatch):
    """/v1/completions puts it before a text where the tokenizer does."""
    monkeypatch.setattr(context, "prompt", lambda _: "<|im_start|>text")
    list(make_user(marked, context).stream(ask(QUESTION)))
    assert endpoint.asked[1]["prompt"].startswith("<|im_start|>text")
    file = Path(context._tokenizer)
    whole = json.loads(file.read_text())
    whole["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}
        },
    }
    file.write_text(json.dumps(whole))
    list(make_user(marked, context).stream(ask(QUESTION)))
    assert endpoint.asked[1]["prompt"].startswith("text")


def test_marks_need_a_known_template(make_user):
    with pytest.raises(UserError, match="leave out --url"):
        list(make_user(marked).stream(ask(QUESTION)))


def test_server_error_after_the_results_is_explained(make_user, endpoint, context):
    user = make_user(marked, context)
    user._show = lambda _: setattr(endpoint, "refuses", (503, "busy"))
    try:
        with pytest.raises(UserError, match=r"tuned is busy \(busy\)"):
            list(user.stream(ask(QUESTION)))
    finally:
        endpoint.refuses = None
    assert len(user.answer.steps) == 1


def test_program_answers_with_plugins(endpoint, repository):
    endpoint.reply = ours
    command = [sys.executable, "scripts/chat.py", "--url", endpoint.url, "--model", "tuned"]
    command += ["--plugins", "calculate", "--prompt", QUESTION, "--json"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, env=os.environ)
    result = json.loads(done.stdout)
    assert (result["answer"], done.returncode) == ("It is 144.", 0)
    assert result["steps"][0]["results"] == "Calculate(\"12*12\") => '144'"
    both = subprocess.run(
        [*command, "--tools", "arithmetic"], cwd=repository, capture_output=True, text=True
    )
    assert both.returncode == 1
    assert "cannot be combined" in both.stderr
