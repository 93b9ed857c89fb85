"""A working folder with the workflow in it, and the real Snakemake to run there."""

import atexit
import functools
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

WORKFLOW = ("Snakefile", "rules", "profiles", "envs", "scripts")


class Project:
    """A working folder and its Snakemake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study = folder / "experiments" / "study.yaml"
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.environment.pop("MLFLOW_TRACKING_URI", None)

    def copy(self, folder: Path) -> "Project":
        """Return an equal project in a new folder; what happens there leaves this one as it is."""
        shared = self.folder / "store" / "models"  # never written to in place

        def link_or_copy(source: str, target: str) -> None:
            way = os.link if Path(source).is_relative_to(shared) else shutil.copy2
            way(source, target)

        shutil.copytree(self.folder, folder, copy_function=link_or_copy, dirs_exist_ok=True)
        if (folder / "store/mlflow/mlflow.db").exists():
            _move_artifacts(folder / "store/mlflow/mlflow.db", self.folder, folder)
        return Project(folder)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *arguments]

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it to its end, in a fork of a process that has imported it."""
        server, output = _warm_snakemake(), self.folder / "output.txt"
        command = {"arguments": arguments, "folder": str(self.folder), "output": str(output)}
        command["environment"] = self.environment
        print(json.dumps(command), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        done = subprocess.CompletedProcess(arguments, status, output.read_text())
        output.unlink()
        assert not check or status == 0, done.stdout
        return done

    def stop_when(self, reached: Callable[[], bool], number: int, *targets: str) -> None:
        """Run targets in a session of their own, and signal its whole group once it is so far."""
        process = subprocess.Popen(
            self.command(*targets),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not reached() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, number)
        assert process.wait() != 0

    def would_run(self, *targets: str) -> dict[str, int]:
        """Return the jobs of a dry run, by rule."""
        output = self.snakemake("-n", *targets).stdout
        jobs = dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))
        jobs.pop("total", None)
        assert jobs or "Nothing to be done" in output
        return {rule: int(count) for rule, count in jobs.items()}


@functools.cache
def _warm_snakemake() -> subprocess.Popen[str]:
    """Start the server; it ends when its input does."""
    program = Path(__file__).with_name("warm_snakemake.py")
    server = subprocess.Popen(
        [sys.executable, "-u", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)
    return server


def lay_out(repository: Path, folder: Path) -> Project:
    """Copy the workflow to a folder, without experiments."""
    for name in WORKFLOW:
        source = repository / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / name)
    (folder / "experiments").mkdir()
    return Project(folder)


def _move_artifacts(database: Path, old: Path, new: Path) -> None:
    """MLflow's database names its artifacts by absolute paths."""
    columns = {"runs": "artifact_uri", "experiments": "artifact_location"}
    with sqlite3.connect(database) as connection:
        for table, column in columns.items():
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(old), str(new))
            )
    connection.close()
