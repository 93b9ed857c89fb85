"""The agent's stage against an endpoint whose two models do what a test says."""

import contextlib
import json
import re
from dataclasses import dataclass

import openai
import pytest

from fake_endpoint import FakeEndpoint
from html_page import Page
from snaketune.agent import evaluate_agent as stage
from snaketune.core.errors import UserError
from snaketune.experiment.agent_files import read_questions
from snaketune.experiment.schema import AgentConfig, Configuration

TOOLS = """\
- name: Weather
  description: Tells the weather.
  parameters: [{name: city}]
  answers: [{input: {city: Oslo}, result: rain}]
"""
QUESTIONS = """\
- {question: How much is 6 * 7?, tool: Arithmetic, accept: ["42"]}
- {question: What is the weather in Oslo?, tool: Weather, accept: [rain]}
- {question: Hello!, tool: null}
"""


def says(model, messages):
    """Speak as a model that knows ReAct, or as one that knows nothing."""
    last = messages[-1]["content"]
    if model == "tiny-1":
        return "It is late."
    if result := re.match(r"Response:(.*)\n", last):
        return f"Thought: I see.\nFinal Answer: It is {result[1]}."
    if "6 * 7" in last:
        return 'Thought: a sum\nAction: Arithmetic\nAction Input: {"expression": "6 * 7"}'
    if "Oslo" in last:
        return 'Thought: look\nAction: Weather\nAction Input: {"city": "oslo"}'
    return "Thought: no tool\nFinal Answer: Hello!"


@dataclass
class Named:
    name: str
    base: str


@dataclass
class Stub:
    client: openai.OpenAI

    def model(self, name):
        return Named(name, "tiny-1")


@dataclass
class Experiment:
    config: Configuration
    name: str = "x_tuned"
    study: str = "x"
    base_id: str = "tiny-1"
    train_id: str = "t1"


@pytest.fixture
def endpoint(monkeypatch):
    """An endpoint with both models."""
    with FakeEndpoint(["x_tuned", "tiny-1"], says).running() as server:
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)

        @contextlib.contextmanager
        def model_server(names, log, bits=None, precision="auto"):
            assert (names, precision) == (["x_tuned"], "fp32")
            yield Stub(client)

        monkeypatch.setattr(stage, "model_server", model_server)
        yield server


class Quiet:
    sent = 0

    def send(self, spans):
        Quiet.sent += 1

    def close(self):
        pass


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "tools.yaml").write_text(TOOLS)
    (tmp_path / "questions.yaml").write_text(QUESTIONS)
    agent = AgentConfig(
        questions="questions.yaml", canned="tools.yaml", max_turn=2, max_new_tokens=40
    )
    values = {"model": {"source": "./x"}, "data": [{"path": "x", "format": "text"}]}
    config = Configuration.model_validate(values | {"train": {"precision": "fp32"}})
    return Experiment(config.model_copy(update={"agent": agent}))


def test_both_models_answer_and_are_judged(endpoint, experiment, tmp_path):
    Quiet.sent = 0
    stage.report_agent(experiment, tmp_path, tmp_path / "agent", tmp_path / "log", Quiet())
    report = json.loads((tmp_path / "agent" / "report.json").read_text())
    figures = {
        name: (row["base"]["value"], row["tuned"]["value"])
        for name, row in report["figures"].items()
        if name != "seconds"
    }
    every = ("strict", "lenient", "allowed", "complete", "chosen", "right", "solved")
    assert figures == dict.fromkeys(every, (0.0, 1.0)) | {
        "no_call": (1.0, 1.0),
        "turns": (2.0, 5 / 3),
    }
    first = report["questions"][0]
    assert first["tuned"]["text"] == "It is 42."
    assert [(each["tool"], each["result"]) for each in first["tuned"]["steps"]] == [
        ("Arithmetic", "42")
    ]
    assert first["base"]["finished"] is False
    assert report["ids"] == {"base": "tiny-1", "train": "t1"}
    assert report["system"].startswith("You are a assistant") and "Weather" in report["system"]
    assert {body["max_tokens"] for body in endpoint.asked} == {40}
    assert Quiet.sent == 6
    Page((tmp_path / "agent" / "report.html").read_text())


def test_context_overflow_ends_one_question_only(endpoint, experiment, tmp_path):
    def outgrows(model, messages):
        if "Oslo" in messages[-1]["content"]:
            endpoint.refuses = 400, "the prompt has 9 tokens, and the model reads 8"
        return says("x_tuned", messages)

    endpoint.reply = outgrows
    (tmp_path / "two.yaml").write_text("\n".join(QUESTIONS.splitlines()[:2]))
    questions = read_questions(tmp_path / "two.yaml")
    settings, canned = experiment.config.agent, tmp_path / "tools.yaml"
    client = openai.OpenAI(base_url=endpoint.url, api_key="none", max_retries=0)
    first, second = stage.answer_all(client, "tuned", "x_tuned", questions, settings, canned)
    assert first.text == "It is 42."
    assert "the prompt has 9 tokens" in second.text
    assert [step.result for step in second.steps] == ["rain"]
    assert second.verdict["strict"] and not second.verdict["right"]
    endpoint.refuses = 503, "busy"
    with pytest.raises(UserError, match="busy"):
        stage.answer_all(client, "tuned", "x_tuned", questions, settings, canned)


def test_question_with_unknown_tool_is_refused(endpoint, experiment, tmp_path):
    (tmp_path / "questions.yaml").write_text("- {question: 1 + 1?, tool: Arithmetics}")
    with pytest.raises(UserError, match=r"(?s)'Arithmetics'.*Did you mean 'Arithmetic'\?.*Fix:"):
        stage.report_agent(experiment, tmp_path, tmp_path / "agent", tmp_path / "log")
    assert endpoint.asked == [] and not (tmp_path / "agent").exists()
