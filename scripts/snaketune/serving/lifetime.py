"""A program that serves ends with those who started it, however they end.

A server has a process group of its own, so that Ctrl-C stops an answer in a chat and not the
server; then nothing tells it that the chat was killed. It notices by itself.
"""

import contextlib
import os
import signal
import sys
import threading

import psutil

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
