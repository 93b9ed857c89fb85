"""The demo without a model, for its tests: the endpoint's answers, and the program on top."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil

BASE, TUNED = "base-1", "assistant"

CALL = 'Thought: I look it up.\nAction: Weather\nAction Input: {"city": "Oslo"}'
FINAL = "Thought: I know it now.\nFinal Answer: It is 4 degrees in Oslo."
WEATHER = """\
tools:
  - name: Weather
    description: Tells today's weather in a city.
    parameters: [{name: city, type: string, description: the city's name, required: true}]
    answers: [{input: {city: Oslo}, result: "4 degrees, <b>rain</b> ![](http://127.0.0.1:9/t.png)"}]
"""


def calls_the_weather(model, messages):
    """Answer as an agent does: first with a call, then with its result."""
    return FINAL if messages[-1]["content"].startswith("Response:") else CALL


def write_models(folder: Path) -> Path:
    """Write stand-ins for an adapter, a kept checkpoint and their base; return the folder."""
    about = {"base_id": BASE, "train_id": "t1", "template": {"system": ""}}
    base, experiment = folder / "store/models" / BASE, folder / "experiments" / TUNED
    files: dict[Path, dict[str, object]] = {
        base / "provenance.json": {},
        base / "config.json": {"max_position_embeddings": 2048},
        base / "tokenizer_config.json": {"chat_template": ""},
        experiment / "adapter/snaketune.json": about,
        experiment / "checkpoints/run.json": {"train_id": "t1"},
        experiment / "checkpoints/iter_5.pth": {},
    }
    for file, value in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    (folder / "weather.yaml").write_text(WEATHER)
    return folder


class Program:
    """scripts/demo.py in a process group of its own, with the models of a folder.

    Attributes:
        port: Of its page.
    """

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        tests = Path(__file__).parent
        paths = os.pathsep.join([str(tests.parent / "scripts"), str(tests)])
        clean = {key: value for key, value in os.environ.items() if "DISPLAY" not in key}
        self.process = subprocess.Popen(
            [sys.executable, tests / "demo/start.py", *arguments, "--port", str(self.port)],
            cwd=folder,
            env=clean | {"PYTHONPATH": paths} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ready(self) -> "Program":
        """Wait until it prints its address."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert f"http://127.0.0.1:{self.port}" in line, line
        self.processes = [psutil.Process(self.process.pid)]
        self.processes += self.processes[0].children(recursive=True)
        return self

    def kill(self) -> None:
        """End it at once; its children end by themselves."""
        self.process.kill()
        self.process.wait()

    def ends(self, seconds: float = 20) -> int:
        """Return its exit status, once its children have ended as well."""
        status = self.process.wait(seconds)
        _, left = psutil.wait_procs(self.processes, seconds)
        assert not left
        return status
