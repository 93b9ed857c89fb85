"""A real `mlflow server` for tests, with its own store; also one that asks for a password."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


class Server:
    """An MLflow server on this machine, that can be killed and started again.

    Args:
        folder: Gets its database, its artifacts and its log.
        app: `basic-auth` for one that asks who one is.
    """

    def __init__(self, folder: Path, app: str | None = None, **environment: str) -> None:
        self.folder, self.app = folder, app
        folder.mkdir(exist_ok=True)
        self.environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.environment.pop("MLFLOW_TRACKING_URI", None)
        self.environment |= environment
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Server":
        """Start it and wait until it answers; making its tables takes seconds the first time."""
        app = ["--app-name", self.app] if self.app else []
        stores = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        stores += ["--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *stores, *app],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()
        return self

    def kill(self) -> None:
        """Kill it with its workers, as a machine that goes down does."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        self.kill()
        raise TimeoutError((self.folder / "server.log").read_text())
