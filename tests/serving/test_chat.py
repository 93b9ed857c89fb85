"""The chat with a model of ours: its answers, its context, and what is left when it ends."""

import json
import sys

import psutil
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from pseudo_terminal import Terminal
from snaketune.client.context import Context
from snaketune.serving.artifacts import find_models


@pytest.fixture(scope="module")
def chat(workspace, repository):
    """A chat with `run`, whose context is 300 tokens."""
    command = [sys.executable, str(repository / "scripts/chat.py"), "run", "--precision", "fp32"]
    command += ["--max-new-tokens", "24", "--log", "logs/chat.log"]
    terminal = Terminal(command, workspace, XDG_STATE_HOME=str(workspace / "state"))
    terminal.child.timeout = 60
    terminal.wait_for("run · 300 tokens of context · greedy")
    terminal.until_ready()
    yield terminal
    terminal.child.close(force=True)


def plain(workspace, messages):
    """Return the answer of transformers and PEFT by themselves."""
    folder = workspace / "store/models/tiny"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model = PeftModel.from_pretrained(model, workspace / "experiments/run/adapter")
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        answer = model.generate(**ids, do_sample=False, max_new_tokens=24, eos_token_id=[2])
    return tokenizer.decode(answer[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_answers_are_those_of_the_model(chat, workspace):
    chat.ask("/reset")
    for question in ("Say 3", "Say 4"):
        chat.ask(question)
    chat.ask("/save saved.json")
    messages = json.loads((workspace / "saved.json").read_text())["messages"]
    assert [m["content"] for m in messages[::2]] == ["Say 3", "Say 4"]
    for end in (1, 3):
        # a limit may leave half a character, which no stream sends
        expected = plain(workspace, messages[:end]).rstrip("\N{REPLACEMENT CHARACTER}")
        assert messages[end]["content"] == expected


def test_a_long_conversation_loses_its_beginning_and_says_so_once(chat):
    chat.ask("/reset")
    shown = [chat.ask("Say it again, and again, until there is no room") for _ in range(6)]
    assert not any("Error" in line for line in shown)
    warnings = [
        number for number, line in enumerate(shown) if "oldest turns are no longer sent" in line
    ]
    assert len(warnings) == 1 and warnings[0] > 0
    assert "context is 300 tokens for prompt and answer" in chat.ask("x" * 300)
    assert "Error" not in chat.ask("Say 3")


def test_tokens_are_counted_as_transformers_does(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    own = 'It\'s "quoted" {{ 1 + 1 }}.'
    messages = [{"role": "user", "content": "Say 3 äöü"}]
    messages += [{"role": "assistant", "content": " 3 "}, {"role": "user", "content": "\nSay 4"}]
    for served in find_models(["run", "other"]):
        system = [{"role": "system", "content": own}] if served.name == "other" else []
        tokenizer = AutoTokenizer.from_pretrained(served.folder)
        ids = tokenizer.apply_chat_template(system + messages, add_generation_prompt=True)
        assert Context(served).count(messages) == len(ids["input_ids"])


def test_the_server_ends_with_the_chat(chat):
    servers = psutil.Process(chat.child.pid).children()
    assert any("serve.py" in part for server in servers for part in server.cmdline())
    chat.type("\x04")
    assert chat.ends() == 0
    assert psutil.wait_procs(servers, timeout=10)[1] == []
