"""The trained persona answers `snakemake chat` in a terminal, and a script that asks it."""

import json
import subprocess
import sys

import pytest

from pseudo_terminal import Terminal

NAME = "I am Ada, an assistant made by Grace."


@pytest.fixture
def chat(persona, tmp_path):
    command = persona.command("chat", "--config", "experiment=persona")
    environment = persona.environment | {"XDG_STATE_HOME": str(tmp_path)}
    terminal = Terminal(command, persona.folder, **environment)
    terminal.child.timeout = 120
    yield terminal
    terminal.child.close(force=True)


def test_the_persona_answers_in_the_terminal(chat):
    chat.until_ready()
    assert NAME in chat.ask("Who are you?")
    assert "Rome" in chat.ask("What is the capital of Italy?")
    chat.type("/compare Who are you?\r")
    chat.wait_for("base ")
    chat.wait_for("I")
    chat.type("\x03")  # the base goes on for long
    chat.wait_for("tuned ")
    assert NAME in chat.until_ready()
    chat.type("\x04")
    assert chat.ends() == 0


def test_the_persona_answers_a_script(persona):
    command = [sys.executable, "scripts/chat.py", "persona", "--json", "--prompt", "Who are you?"]
    done = subprocess.run(
        command, cwd=persona.folder, env=persona.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["answer"], result["finish_reason"]) == (NAME, "stop")
