"""Run our model server while a program talks to it. Imports no torch."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import openai
import requests

from snaketune.core.errors import UserError
from snaketune.serving.artifacts import ServedModel, find_models

PROGRAM = Path(__file__).parents[2] / "serve.py"
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class ModelServer:
    """A running server: its address, its models, and OpenAI's client talking to it."""

    url: str
    models: list[ServedModel]
    client: openai.OpenAI

    def model(self, name: str) -> ServedModel:
        """The model with this id."""
        return next(model for model in self.models if model.name == name)


@contextlib.contextmanager
def model_server(
    names: Sequence[str], log: Path, bits: int | None = None, precision: str = "auto"
) -> Iterator[ModelServer]:
    """Serve these models and their bases on a free port of 127.0.0.1 while the block runs.

    The server ends with this process, however this process ends.

    Args:
        names: Experiments, `X/iter_N`, or base models' ids.
        log: The file for the server's output.
        bits: 4 or 8 to quantise the base; None to leave it as it is.
        precision: `bf16`, `fp32`, or `auto` for what this machine is good at.

    Raises:
        UserError: A model is not built, or the server does not start.
    """
    models = find_models(list(names))
    # the server inherits the listening socket: no other program can take its port in between
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        arguments = [*names, "--precision", precision]
        arguments += ["--bits", str(bits)] if bits else []
        process = _start(arguments, listening, log)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        url = f"http://127.0.0.1:{port}/v1"
        # HTTP_PROXY may be set: a proxy doesn't reach the ports of this machine
        direct = openai.DefaultHttpxClient(trust_env=False)
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, http_client=direct)
        yield ModelServer(url, models, client)
    finally:
        _stop(process)


def _start(arguments: list[str], listening: socket.socket, log: Path) -> subprocess.Popen[bytes]:
    """Start the server in its own session, which Ctrl-C doesn't reach."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = listening.fileno()
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments, "--fd", str(descriptor)],
            stdin=subprocess.PIPE,  # closes with this process: see lifetime.end_with_stdin
            stdout=output,
            stderr=output,
            pass_fds=[descriptor],
            start_new_session=True,
        )


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    """Wait until the server answers. Its port is open from the start, so requests would wait."""
    with requests.Session() as session:
        session.trust_env = False
        while process.poll() is None:
            with contextlib.suppress(requests.RequestException):
                session.get(health, timeout=5).raise_for_status()
                return
            time.sleep(0.1)
    last_lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    listed = "".join(f"\n    {line}" for line in last_lines)
    raise UserError(f"the model server did not start. The end of {log}:{listed}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
