"""What can be served is found without torch, and what cannot says what builds it."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaketune.core.errors import UserError
from snaketune.serving import engines, server_process
from snaketune.serving.artifacts import find_models
from snaketune.serving.port import open_port


@pytest.fixture(autouse=True)
def _in_workspace(workspace, monkeypatch):
    monkeypatch.chdir(workspace)


def test_models_come_with_their_base_once():
    models = find_models(["run", "other", "run/iter_4", "tiny"])
    assert [model.name for model in models] == ["run", "other", "run/iter_4", "tiny"]
    assert {model.base for model in models} == {"tiny"}
    assert [model.is_base for model in models] == [False, False, False, True]
    assert find_models(["run"])[1].name == "tiny"
    assert [model.name for model in find_models(["tiny", "run", "run", "tiny"])] == ["run", "tiny"]


@pytest.mark.parametrize(
    "name, message",
    [
        ("nothing", "Fix: snakemake experiments/nothing/adapter"),
        ("run/iter_5", "experiments/run/iter_5 has neither an adapter nor a merged model"),
        ("../tiny", "Fix: snakemake experiments"),
    ],
)
def test_missing_model_names_the_command_that_builds_it(name, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        find_models([name])


def test_incomplete_base_is_refused(workspace, tmp_path, monkeypatch):
    (tmp_path / "store/models/half").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="half has neither"):
        find_models(["half"])


@pytest.mark.parametrize("about", ["{}", "[]", '{"base_id": "tiny", "template": null}', "{"])
def test_damaged_model_record_is_named(workspace, tmp_path, monkeypatch, about):
    file = tmp_path / "experiments/run/adapter/snaketune.json"
    file.parent.mkdir(parents=True)
    file.write_text(about)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"adapter/snaketune\.json (?s:.)*Fix: "):
        find_models(["run"])


def test_checkpoint_of_another_run_is_refused(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(workspace, tmp_path / "copy"))
    run = Path("experiments/run/checkpoints/run.json")
    run.write_text(json.dumps(json.loads(run.read_text()) | {"train_id": "another"}))
    with pytest.raises(UserError, match="Fix: snakemake experiments/run/iter_4/adapter"):
        find_models(["run/iter_4"])


@pytest.mark.parametrize("key", ["n_positions", "max_seq_len", "colour"])
def test_context_length_has_several_keys(workspace, tmp_path, monkeypatch, key):
    monkeypatch.chdir(shutil.copytree(workspace, tmp_path / "copy"))
    Path("store/models/tiny/config.json").write_text(json.dumps({key: 77}))
    if key == "colour":
        with pytest.raises(UserError, match=r"tiny/config\.json does not say .*n_positions"):
            find_models(["run"])
    else:
        assert find_models(["run"])[0].context_length == 77


def test_a_base_that_is_gone_says_what_fetches_it(workspace, tmp_path, monkeypatch):
    shutil.copytree(workspace / "experiments/run", tmp_path / "experiments/run")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="Fix: snakemake store/models/tiny"):
        find_models(["run"])


def test_a_server_that_does_not_start_tells_the_end_of_its_log(tmp_path, monkeypatch):
    program = tmp_path / "serve.py"
    program.write_text("print('the very reason'); raise SystemExit(3)")
    monkeypatch.setattr(server_process, "PROGRAM", program)
    with (
        pytest.raises(UserError, match=r"did not start.*\n +the very reason"),
        server_process.model_server(["run"], tmp_path / "logs/serve.log"),
    ):
        pass


def test_the_server_ends_with_the_block(tmp_path, monkeypatch):
    program, pid = tmp_path / "serve.py", tmp_path / "pid"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody there: no way to this machine
    monkeypatch.setenv("no_proxy", "example.com")
    program.write_text(
        "import http.server, os, socket, sys, threading\n"
        "from pathlib import Path\n"
        "from snaketune.serving import lifetime\n"
        f"Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        "class Healthy(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "        self.wfile.write(b'{\"data\": []}')\n"
        "threading.Timer(20, os._exit, [3]).start()\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Healthy, False)\n"
        "server.socket = socket.socket(fileno=int(sys.argv[sys.argv.index('--fd') + 1]))\n"
        "lifetime.end_with_stdin()\n"
        "server.serve_forever()\n"
    )
    monkeypatch.setattr(server_process, "PROGRAM", program)
    with (
        pytest.raises(ZeroDivisionError),
        server_process.model_server(["run"], tmp_path / "logs/serve.log") as running,
    ):
        assert list(running.client.models.list()) == []
        assert running.model("tiny").is_base and running.url.startswith("http://127.0.0.1:")
        raise ZeroDivisionError
    assert not psutil.pid_exists(int(pid.read_text()))


def test_starting_a_server_imports_no_torch():
    code = "import sys, snaketune.serving.server_process; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_port_in_use_suggests_another():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port + 1}"):
            open_port(port)
    with pytest.raises(UserError, match=r"cannot open port 70000(?s:.)*Fix: choose one from"):
        open_port(70000)


def test_engines_serve_the_merged_model_on_localhost(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(workspace, tmp_path / "copy"))
    for engine in engines.ENGINES:
        with pytest.raises(UserError, match=f"Fix: pip install {engine}"):
            engines.engine_command(engine, find_models(["run"])[0], 8000)
        (tmp_path / f"{engine}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="Fix: snakemake experiments/run/merged"):
        engines.engine_command("vllm", find_models(["run"])[0], 8000)
    shutil.copytree("experiments/run/adapter", "experiments/run/merged")
    for engine, host in (("vllm", "--host"), ("lmdeploy", "--server-name")):
        command = engines.engine_command(engine, find_models(["run"])[0], 8000)
        assert command[command.index(host) + 1] == "127.0.0.1"
        assert "experiments/run/merged" in command and "8000" in command
    with pytest.raises(UserError, match="Fix: snakemake experiments/run/iter_4/merged"):
        engines.engine_command("vllm", find_models(["run/iter_4"])[0], 8000)
    with pytest.raises(UserError, match="tiny is a base model"):
        engines.engine_command("vllm", find_models(["tiny"])[0], 8000)


TEXT = st.text("ab\n", max_size=12)


@given(TEXT, st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_only_possible_stop_strings_are_held_back(text, stops):
    from snaketune.serving.stop_strings import cut_at_stop

    sent, held = cut_at_stop(text, stops)
    ended = [text[:at] for at in range(len(text)) if any(text.startswith(s, at) for s in stops)]
    if ended:
        assert (sent, held) == (min(ended, key=len), "")
        return
    assert sent + held == text
    beginnings = {stop[:size] for stop in stops for size in range(1, len(stop))}
    safe = [k for k in range(len(text) + 1) if all(text[j:] not in beginnings for j in range(k))]
    assert len(sent) == max(safe)
