"""Nothing that serves outlives those who started it, even by `kill -9`."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from snaketune.serving import lifetime

SECONDS = 30
WAIT = "import time; print('ready', flush=True); time.sleep(600)"
SERVER = f"from snaketune.serving import lifetime; lifetime.{{}}(); {WAIT}"


def start(code, **settings):
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **settings
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_server_ends_when_its_parent_is_killed():
    server = SERVER.format("end_with_stdin")
    parent = start(
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {server!r}], stdin=subprocess.PIPE,"
        " start_new_session=True)\n"
        "time.sleep(600)"
    )
    [child] = psutil.Process(parent.pid).children()
    parent.kill()
    gone, alive = psutil.wait_procs([child], SECONDS)
    assert gone and not alive


def test_a_server_ends_when_snakemake_is_killed():
    snakemake = start(WAIT)
    server = start(
        SERVER.format("end_with_snakemake"),
        env=os.environ | {lifetime.SNAKEMAKE: str(snakemake.pid)},
        start_new_session=True,
    )
    snakemake.kill()
    snakemake.wait()
    assert server.wait(SECONDS) == -signal.SIGTERM


def test_server_ends_if_snakemake_is_already_gone():
    snakemake = start(WAIT)
    snakemake.kill()
    snakemake.wait()
    code = SERVER.format("end_with_snakemake")
    environment = os.environ | {lifetime.SNAKEMAKE: str(snakemake.pid)}
    server = subprocess.Popen([sys.executable, "-c", code], env=environment)
    assert server.wait(SECONDS) == -signal.SIGTERM


def test_failing_server_is_reported():
    code = (
        "import os, sys\nfrom snaketune.serving import lifetime\n"
        "lifetime.run_server([sys.executable, '-c', 'raise SystemExit(3)'], os.environ)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "UserError: the server ended with status 3" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_a_server_with_its_children(number):
    foreign = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {WAIT!r}], check=False)"
    )
    runner = start(
        "import os, sys\nfrom snaketune.serving import lifetime\n"
        f"lifetime.run_server([sys.executable, '-c', {foreign!r}], os.environ)"
    )
    started = psutil.Process(runner.pid).children(recursive=True)
    assert len(started) == 2
    runner.send_signal(number)
    assert runner.wait(SECONDS) == 0
    gone, alive = psutil.wait_procs(started, SECONDS)
    assert len(gone) == 2 and not alive
