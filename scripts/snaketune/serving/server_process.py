"""Start the model server for as long as a program talks to it. Imports no torch."""

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
        """Return the model of this id."""
        return next(each for each in self.models if each.name == name)


@contextlib.contextmanager
def model_server(
    names: Sequence[str], log: Path, bits: int | None = None, precision: str = "auto"
) -> Iterator[ModelServer]:
    """Serve these models and their bases on a free port of 127.0.0.1 while the block runs.

    The server ends with this process, whatever ends it.

    Args:
        names: Experiments, `X/iter_N`, or base models' ids.
        log: What the server prints.
        bits: 4 or 8 to hold the base quantised; None for as it is.
        precision: `bf16`, `fp32`, or `auto` for what this machine is good at.

    Raises:
        UserError: A model is not built, or the server does not start.
    """
    models = find_models(list(names))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        arguments = [*names, "--precision", precision]
        arguments += ["--bits", str(bits)] if bits else []
        process = _start(arguments, listening, log)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        url = f"http://127.0.0.1:{port}/v1"
        # a proxy of the environment does not reach this machine's own ports
        direct = openai.DefaultHttpxClient(trust_env=False)
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, http_client=direct)
        yield ModelServer(url, models, client)
    finally:
        _stop(process)


def _start(arguments: list[str], listening: socket.socket, log: Path) -> subprocess.Popen[bytes]:
    """Start the server in a session of its own, where no Ctrl-C reaches it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = listening.fileno()
    with log.open("wb") as told:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments, "--fd", str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=told,
            stderr=told,
            pass_fds=[descriptor],
            start_new_session=True,
        )


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    """Wait until the server answers: until then its port is open, and requests wait there."""
    with requests.Session() as session:
        session.trust_env = False
        while process.poll() is None:
            with contextlib.suppress(requests.RequestException):
                session.get(health, timeout=5).raise_for_status()
                return
            time.sleep(0.1)
    told = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    listed = "".join(f"\n    {line}" for line in told)
    raise UserError(f"the model server did not start. The end of {log}:{listed}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
