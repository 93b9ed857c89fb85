"""scripts/demo.py: on 127.0.0.1 alone, gone without a trace, and clear when it cannot start."""

import importlib.util
import os
import signal
import socket
import subprocess

import pytest

import demo
from fake_demo import BASE, TUNED, Program, write_models
from snaketune.core.errors import UserError
from snaketune.serving.artifacts import find_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def snakemake():
    """A process in the place of the Snakemake that starts the program."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def start(folder):
    started = []

    def start(**environment):
        started.append(Program(folder, **environment))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def test_no_process_is_left_however_it_ends(start, snakemake):
    numbers = [signal.SIGINT, signal.SIGHUP, signal.SIGKILL]
    started = [start() for _ in numbers]
    started.append(start(SNAKETUNE_SNAKEMAKE_PID=str(snakemake.pid)))
    for program in started:
        program.ready()
        assert len(program.processes) == 2  # page and models
    for program in started:
        listening = [at.laddr for one in program.processes for at in one.net_connections("tcp")]
        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert not [at.path for at in program.processes[0].memory_maps() if "torch" in at.path]
    for program, number in zip(started, numbers, strict=False):
        os.kill(program.process.pid, number)
    snakemake.kill()  # nobody tells the program: it sends itself SIGTERM
    snakemake.wait()
    assert [program.ends() for program in started] == [0, 0, -signal.SIGKILL, 0]
    for program in started:
        with socket.create_server(("127.0.0.1", program.port)):
            pass


def test_missing_streamlit_comes_with_its_command(monkeypatch):
    whole = importlib.util.find_spec
    absent = {"streamlit"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in absent else whole(n))
    with pytest.raises(UserError, match=r"pip install -e '\.\[agent\]'"):
        demo.main([])


def test_no_built_model_comes_with_a_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no model is built.\n  Fix: snakemake experiments/"):
        demo.main([])


def test_unbuilt_model_comes_with_its_target(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="snakemake experiments/other/adapter"):
        demo.main(["other"])


def test_port_in_use_is_refused_before_anything_starts(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port + 1}"):
            demo.main([TUNED, "--port", str(port)])


def test_invalid_tools_are_refused_before_anything_starts(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("tools: [{name: Weather}]\n")
    with pytest.raises(UserError, match=r"wrong\.yaml:1"):
        demo.main([TUNED, "--canned", str(wrong)])


@pytest.mark.parametrize(
    ("named", "shown"),
    [
        ([], [BASE, TUNED]),
        ([TUNED], [BASE, TUNED]),
        ([f"{TUNED}/iter_5"], [BASE, f"{TUNED}/iter_5"]),
        ([BASE], [BASE]),
        ([TUNED, f"{TUNED}/iter_5"], [TUNED, f"{TUNED}/iter_5"]),
    ],
)
def test_single_model_is_shown_next_to_its_base(folder, monkeypatch, named, shown):
    monkeypatch.chdir(folder)
    served = find_models(list(dict.fromkeys([*named, TUNED, f"{TUNED}/iter_5", BASE])))
    assert demo.first_choice(named, served) == shown


@pytest.mark.parametrize(("name", "opens"), [("DISPLAY", True), ("OTHER", False)])
def test_browser_opens_only_with_a_display(monkeypatch, name, opens):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv(name, ":0")
    assert demo.has_display() == opens
