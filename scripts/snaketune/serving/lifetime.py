"""A program that serves ends with those who started it, however they end.

A server has a process group of its own, so that Ctrl-C stops an answer in a chat and not the
server; then nothing tells it that the chat was killed. It notices by itself.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

import psutil

from snaketune.core.errors import UserError

SNAKEMAKE = "SNAKETUNE_SNAKEMAKE_PID"
"""The environment variable in which the Snakefile leaves the outermost Snakemake's process id."""


def end_with_snakemake() -> None:
    """Send this process SIGTERM when the Snakemake that runs it is gone, even by `kill -9`."""
    pid = os.environ.get(SNAKEMAKE)
    if pid is None:
        return

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(pid)).wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def end_with_stdin() -> None:
    """Send this process SIGTERM when its stdin closes: a pipe from a parent, which then is gone."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run someone else's server until it ends.

    It ends, with all that it started, when this process gets SIGINT, SIGTERM or SIGHUP.

    Raises:
        UserError: It ended by itself, and says that it failed.
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
        raise UserError(f"it ended with status {process.returncode}; what it printed tells why.")
