"""A server ends with the program that started it, however that program ends.

A server has a process group of its own, so that Ctrl-C stops an answer in a chat but not the
server. The price is that it gets no signal when the chat is killed, so it has to notice by itself.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

import psutil

from snaketune.core.errors import UserError

SNAKEMAKE = "SNAKETUNE_SNAKEMAKE_PID"
"""The environment variable with the outermost Snakemake's process id, set by the Snakefile."""


def end_with_snakemake() -> None:
    """Send this process SIGTERM when the Snakemake that runs it is gone, even by `kill -9`."""
    if pid := os.environ.get(SNAKEMAKE):
        _end_after(lambda: _wait_for_process(int(pid)))


def end_with_stdin() -> None:
    """Send this process SIGTERM when its stdin, a pipe from the parent, closes."""
    _end_after(sys.stdin.buffer.read)


def run_server(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run another program's server until it ends.

    SIGINT, SIGTERM and SIGHUP to this process end it with all the processes it has started.

    Raises:
        UserError: It failed by itself.
    """
    stopped = False
    process = subprocess.Popen(command, env=environment, start_new_session=True)

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    end_with_snakemake()
    if process.wait() and not stopped:
        raise UserError(
            f"the server ended with status {process.returncode}; its output above says why."
        )


def _wait_for_process(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait()


def _end_after(wait: Callable[[], object]) -> None:
    """Send this process SIGTERM once `wait` returns."""

    def watch() -> None:
        wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
