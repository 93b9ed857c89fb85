"""The chat inside a real Snakemake: who gets Ctrl-C, and what is left when the terminal closes."""

import os
import signal
import termios

import pexpect
import psutil
import pytest

from pseudo_terminal import Terminal
from snaketune.core.terminal import CtrlC

SNAKEFILE = """\
rule chat:
    threads: workflow.cores
    shell: "{command} --url {url} --model tuned"
"""


@pytest.fixture
def chat(tmp_path, endpoint, program):
    """A chat as rules/serve.smk starts it, and its Snakemake in the terminal."""
    text = SNAKEFILE.format(command=" ".join(program), url=endpoint.url)
    (tmp_path / "Snakefile").write_text(text)
    command = [program[0], "-m", "snakemake", "chat", "--cores", "1", "--nolock"]
    terminal = Terminal(command, tmp_path, XDG_STATE_HOME=str(tmp_path))
    terminal.until_ready()
    return terminal


def test_ctrl_c_stops_the_answer_not_snakemake(chat):
    assert os.tcgetpgrp(chat.child.child_fd) != os.getpgid(chat.child.pid)
    chat.type("count\r")
    chat.wait_for("5 6 7 ")
    chat.type("\x1a")  # nobody would wake it if it were suspended
    chat.wait_for("20 21 ")
    chat.type("\x03")
    assert "(stopped)" in chat.until_ready()
    assert "tuned heard: Still there? (3)" in chat.ask("Still there?")
    chat.type("\x04")
    chat.wait_for("1 of 1 steps (100%) done")
    assert chat.ends() == 0


def test_second_ctrl_c_does_not_interrupt_the_first():
    with CtrlC() as ctrl_c:
        signal.raise_signal(signal.SIGINT)  # nothing is to be stopped
        try:
            with ctrl_c.stops():
                signal.raise_signal(signal.SIGINT)
                pytest.fail("it was not stopped")
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_script_keeps_its_terminal(tmp_path, endpoint, program):
    """What it pipes the answers to may read keys, and Ctrl-C ends them all."""
    command = " ".join([*program, "--url", endpoint.url, "--model", "tuned", "--prompt", "count"])
    script = Terminal(["/bin/sh", "-c", f"{command} | cat; :"], tmp_path)
    script.wait_for("answers")
    assert os.tcgetpgrp(script.child.child_fd) == script.child.pid
    script.type("\x03")
    script.ends()


def test_closed_terminal_leaves_no_process(chat):
    snakemake = psutil.Process(chat.child.pid)
    family = [snakemake, *snakemake.children(recursive=True)]
    assert any("chat.py" in part for process in family for part in process.cmdline())
    chat.hang_up()
    assert psutil.wait_procs(family, timeout=10)[1] == []


def test_killed_chat_restores_the_terminal(tmp_path, endpoint, program):
    command = [*program, "--url", endpoint.url, "--model", "tuned"]
    chat = Terminal(command, tmp_path, XDG_STATE_HOME=str(tmp_path))
    before = termios.tcgetattr(chat.child.child_fd)
    chat.until_ready()
    assert termios.tcgetattr(chat.child.child_fd) != before
    chat.child.kill(signal.SIGTERM)
    chat.child.expect(pexpect.EOF)
    assert termios.tcgetattr(chat.child.child_fd) == before
    assert chat.ends() == 128 + signal.SIGTERM
