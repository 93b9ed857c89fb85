"""The trained persona answers `snakemake chat`, where it is trained: minutes, so not here.

snakemake experiments/assistant_mixed/adapter && pytest tests/workflow/test_chat.py
"""

import json
import subprocess
import sys

import pytest

from pseudo_terminal import Terminal

CHAT = [sys.executable, "-m", "snakemake", "chat", "--config", "experiment=assistant_mixed"]


@pytest.fixture(scope="module")
def trained(repository):
    """The repository, if its persona is trained and up to date."""
    if not (repository / "experiments/assistant_mixed/adapter").exists():
        pytest.skip("needs: snakemake experiments/assistant_mixed/adapter")
    dry = subprocess.run([*CHAT, "-n"], cwd=repository, capture_output=True, text=True)
    if "train" in dry.stdout + dry.stderr:
        pytest.skip("is out of date: snakemake experiments/assistant_mixed/adapter")
    return repository


def test_the_persona_answers_in_the_terminal(trained, tmp_path):
    chat = Terminal(CHAT, trained, XDG_STATE_HOME=str(tmp_path))
    chat.child.timeout = 120
    chat.until_ready()
    assert "Ada" in chat.ask("Who are you?")
    assert "Paris" in chat.ask("What is the capital of France?")
    chat.ask("/reset")
    chat.type("/compare Who are you?\r")
    chat.wait_for("base ")
    chat.wait_for("I")
    chat.type("\x03")  # the base goes on for long
    chat.wait_for("tuned ")
    assert "Ada" in chat.until_ready()
    chat.type("\x04")
    assert chat.ends() == 0


def test_the_persona_answers_a_script(trained):
    command = [sys.executable, "scripts/chat.py", "assistant_mixed", "--json"]
    command += ["--prompt", "Who are you?", "--prompt", "Wer bist du?"]
    done = subprocess.run(command, cwd=trained, capture_output=True, text=True, check=True)
    first, _ = map(json.loads, done.stdout.splitlines())
    assert "Ada" in first["answer"] and first["finish_reason"] == "stop"
