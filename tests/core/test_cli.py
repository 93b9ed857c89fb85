"""How a program ends: its status, what the terminal shows, and what the log keeps."""

import os
import re
import subprocess
import sys
import textwrap

import pytest


@pytest.fixture
def program(repository, tmp_path):
    """Return a function that runs a `main` with this body, with a log and without a terminal."""

    def program(body: str) -> subprocess.CompletedProcess:
        lines = textwrap.indent(textwrap.dedent(body), "    ")
        (tmp_path / "stage.py").write_text(
            "import logging, sys\n"
            "from pathlib import Path\n"
            "from snaketune.core import cli, errors\n"
            f"def main(argv):\n    cli.open_log(Path('logs/x.log'))\n{lines}\n"
            "sys.exit(cli.run(main))\n"
        )
        environment = os.environ | {"PYTHONPATH": str(repository / "scripts")}
        command = [sys.executable, "stage.py"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return program


def log_of(tmp_path) -> str:
    return (tmp_path / "logs" / "x.log").read_text()


def test_user_error_has_no_traceback(program, tmp_path):
    done = program("raise errors.UserError('rows.jsonl:3: wrong.\\n  Fix: right it')")
    assert done.returncode == 1
    assert done.stderr == "Error: rows.jsonl:3: wrong.\n  Fix: right it\n"
    assert "Error: rows.jsonl:3: wrong." in log_of(tmp_path)
    assert "Traceback" not in log_of(tmp_path)


def test_unexpected_error_names_the_log(program, tmp_path):
    done = program("{}['key']")
    assert done.returncode == 1
    assert done.stderr == "Unexpected KeyError: 'key'\n  The traceback is in logs/x.log\n"
    assert "Traceback (most recent call last)" in log_of(tmp_path)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("raise errors.Interrupted(15, 'saved')", 128 + 15),
        ("raise KeyboardInterrupt", 128 + 2),
    ],
)
def test_interruption_has_the_shells_exit_status(program, body, status):
    done = program(body)
    assert done.returncode == status
    assert done.stderr.startswith("Stopped")


def test_library_output_goes_only_to_the_log(program, tmp_path):
    done = program(
        """
        import os
        print("from python")
        os.system("echo from a compiler >&2")
        logging.getLogger("library").warning("from a library")
        logging.getLogger("snaketune.x").info("ours [bold]")
        """
    )
    assert done.stdout == ""
    assert re.fullmatch(r"\d\d:\d\d:\d\d stage +ours \[bold\]\n", done.stderr)
    for line in ("from python", "from a compiler", "from a library", "ours [bold]"):
        assert log_of(tmp_path).count(line) == 1


def test_each_run_starts_a_new_log(program, tmp_path):
    program("print('first')")
    program("print('second')")
    assert log_of(tmp_path) == "second\n"


def test_waiting_openmp_threads_soon_sleep(program, tmp_path, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_DISPLAY_ENV", "verbose")  # the runtime itself tells what it was given
    program("import torch; torch.ones(1)")
    assert "GOMP_SPINCOUNT = '3000'" in log_of(tmp_path)
