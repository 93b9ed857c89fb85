"""Traces in a real MLflow store: every question with its turns, calls and errors, and no secret."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time

import mlflow
import pytest

from snaketune.core.errors import UserError
from snaketune.tracking import agent_traces
from snaketune.tracking import mlflow_client as reach
from snaketune.tracking.agent_traces import MlflowTracer

COMPUTE = 'Thought: I compute.\nAction: Arithmetic\nAction Input: {"expression": "17*23"}'
DIVIDE = 'Action: Arithmetic\nAction Input: {"expression": "1/0"}'
FINISH = "Thought: I know.\nFinal Answer: 391"


@pytest.fixture
def store(tmp_path, empty_store, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(reach, "DEFAULT_STORE", tmp_path)
    monkeypatch.setenv("SERPER_API_KEY", "sErPeRkEy")
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def traces(store):
    client = mlflow.MlflowClient(f"sqlite:///{store}/mlflow.db")
    study = client.get_experiment_by_name("study")
    found = client.search_traces(locations=[study.experiment_id])
    return sorted(found, key=lambda each: each.info.request_time)


def test_every_question_is_a_trace(agent, store):
    asker = agent(
        [COMPUTE, DIVIDE, "hm", FINISH, "Final Answer: 2"],
        tools=["arithmetic", "google"],
        tracer=MlflowTracer("study"),
    )
    before = time.time_ns()
    asker.ask("What is 17 * 23?")
    after = time.time_ns()
    asker.ask("And 1 + 1?")
    asker.close()
    first, second = traces(store)
    assert (first.info.request_preview, first.info.response_preview) == ("What is 17 * 23?", "391")
    assert first.info.state.value == "OK"
    spans = first.data.spans
    assert [(each.name, each.span_type) for each in spans] == [
        ("agent", "AGENT"),
        ("tuned", "LLM"),
        ("Arithmetic", "TOOL"),
        ("tuned", "LLM"),
        ("Arithmetic", "TOOL"),
        ("tuned", "LLM"),
        ("NoAction", "TOOL"),
        ("tuned", "LLM"),
    ]
    root, turn, call, _, failed, _, formless, last = spans
    assert root.inputs == {
        "question": "What is 17 * 23?",
        "model": "tuned",
        "tools": ["Arithmetic", "GoogleSearch"],
    }
    assert root.outputs == {"text": "391", "finished": True}
    assert [each.parent_id for each in spans] == [None] + [root.span_id] * 7
    assert turn.inputs["messages"][1] == {"role": "user", "content": "What is 17 * 23?"}
    assert (turn.outputs, last.outputs) == (COMPUTE, FINISH)
    assert (call.inputs, call.outputs) == ({"expression": "17*23"}, "391")
    assert call.status.status_code.value == "OK"
    assert failed.status.status_code.value == "ERROR"
    assert failed.status.description == "it has no value: division by zero"
    assert formless.status.description == "Please follow the format"
    times = [(each.start_time_ns, each.end_time_ns) for each in spans]
    assert all(before <= start <= end <= after for start, end in times)
    assert times[1][1] <= times[2][0] <= times[2][1] <= times[3][0]
    assert second.info.response_preview == "2"
    sessions = {each.info.trace_metadata["mlflow.trace.session"] for each in (first, second)}
    assert len(sessions) == 1


def test_no_secret_is_stored(agent, store):
    asker = agent([COMPUTE, FINISH], tools=["arithmetic", "google"], tracer=MlflowTracer("study"))
    asker.ask("?")
    asker.close()
    assert len(traces(store)) == 1
    dumped = "\n".join(sqlite3.connect(store / "mlflow.db").iterdump())
    assert "17*23" in dumped
    assert "sErPeRkEy" not in dumped
    assert "kEy0fTests" not in dumped
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_failed_question_is_a_trace(agent, store, endpoint):
    asker = agent([FINISH], tracer=MlflowTracer("study"))
    endpoint.refuses = 400, "too long"
    with pytest.raises(UserError):
        asker.ask("?")
    asker.close()
    (trace,) = traces(store)
    assert trace.info.state.value == "ERROR"
    assert "too long" in trace.info.response_preview
    assert [each.status.status_code.value for each in trace.data.spans] == ["ERROR", "ERROR"]


def test_no_tracer_sends_nothing(agent, store, monkeypatch):
    monkeypatch.setattr(agent_traces, "_log", lambda *_: pytest.fail("sent"))
    asker = agent([FINISH])
    assert asker.ask("?").text == "391"
    asker.close()


def test_failing_store_costs_one_warning(agent, store, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:pAsSwOrD@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    asker = agent([COMPUTE, FINISH, FINISH], tracer=MlflowTracer("study"))
    assert asker.ask("?").text == "391"
    assert asker.ask("?").text == "391"
    asker.close()
    told = [each.getMessage() for each in caplog.records if each.name.startswith("snaketune")]
    assert len(told) == 1
    assert "did not take the agent's trace" in told[0]
    assert "pAsSwOrD" not in caplog.text


def test_missing_mlflow_costs_one_warning(agent, store, monkeypatch, caplog):
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "mlflow.entities", None)
    asker = agent([FINISH, FINISH], tracer=MlflowTracer("study"))
    assert [asker.ask("?").text, asker.ask("?").text] == ["391", "391"]
    asker.close()
    assert sum("did not take" in each.getMessage() for each in caplog.records) == 1


def test_agent_imports_neither_torch_nor_mlflow(repository):
    code = (
        "import sys, openai\n"
        "from snaketune.agent import Agent, parse\n"
        "from snaketune.tracking.agent_traces import MlflowTracer\n"
        "assert 'lagent' not in sys.modules\n"
        "client = openai.OpenAI(base_url='http://127.0.0.1:1', api_key='none')\n"
        "Agent(client, 'tuned', ['arithmetic', 'python', 'arxiv'], tracer=MlflowTracer('study'))\n"
        "print([name for name in ('torch', 'transformers', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(repository / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
