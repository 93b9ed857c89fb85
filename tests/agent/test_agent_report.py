"""The agent's page: both transcripts, step by step, as text; figures with their intervals."""

import json

import pytest

from html_page import Page
from snaketune.agent.agent_record import AgentFigure, AgentRecord, AgentTranscript
from snaketune.agent.agent_report import html, judged, sentence
from snaketune.agent.evaluate_agent import summarise
from snaketune.experiment.agent_files import AgentQuestion

EVIL = "<script>alert('x')</script>"
QUESTIONS = [
    AgentQuestion(question="17 + 4?", tool="Arithmetic", accept=["21"]),
    AgentQuestion(question=f"Hello {EVIL}", tool=None),
]


def transcript(text, *steps, finished=True, **verdict):
    return AgentTranscript(
        text=text,
        finished=finished,
        steps=list(steps),
        verdict={"turns": 2, "seconds": 1.5, **verdict},
    )


def step(tool, text, result="", error=None, thought="I think"):
    return {"thought": thought, "tool": tool, "tool_input": text, "result": result} | {
        "error": error,
        "seconds": 0.1,
    }


def verdict(holds):
    names = ("strict", "lenient", "allowed", "complete", "chosen", "right", "solved")
    return dict.fromkeys(names, holds)


def report(count=1) -> AgentRecord:
    failed = step("", "", error="no form")
    base = transcript("Sorry", failed, finished=False, **verdict(False))
    tuned = transcript("It is 21.", step("Arithmetic", f"{{{EVIL}}}", "21"), **verdict(True))
    abacus = step("Abacus", "1", error=f"no tool {EVIL}")
    hello = transcript("Hi.", abacus, no_call=False), transcript("Hello!", no_call=True)
    summary = summarise(
        [QUESTIONS[0]] * count + [QUESTIONS[1]],
        [base] * count + [hello[0]],
        [tuned] * count + [hello[1]],
    )
    about = {
        "experiment": "agent_tuned",
        "study": "agent",
        "description": "a description",
        "ids": {"base": "base-1", "train": "train-1"},
        "models": {"base": "tiny-1", "tuned": "agent_tuned"},
        "agent": {"max_turn": 4, "max_new_tokens": 128},
        "system": f"You are {EVIL}",
    }
    return AgentRecord.model_validate(about | summary)


@pytest.fixture(scope="module")
def page():
    return html(report(8))


def test_page_loads_nothing(page):
    found = Page(page)
    assert found.loaded == [] and "script" not in found.tags
    assert EVIL in found.text


def test_transcripts_are_side_by_side(page):
    row = next(part for part in page.split("<tr>") if "17 + 4?" in part and "data-model" in part)
    base, tuned = row.split('data-model="agent_tuned"')
    assert (
        'data-model="base"' in base and "neither a call nor an answer" in base and "Sorry" in base
    )
    places = [tuned.index(text) for text in ("I think", "Arithmetic", "<code>", "21</p>", "It is")]
    assert places == sorted(places)
    assert base.count("✗") == 4 and tuned.count("✓") == 4


def test_significant_figures_are_marked(page):
    strict = next(part for part in page.split("<tr>") if "<b>strict</b>" in part)
    assert "100\u00a0% *" in strict.replace(" %", "\u00a0%") and 'class="number good"' in strict
    assert "0–32 %" in strict and "68–100 %" in strict  # Wilson's of 0 and 8 of 8
    quiet = next(part for part in page.split("<tr>") if "<b>no_call</b>" in part)
    assert "*" not in quiet and "good" not in quiet


def test_sentence_has_rates_and_significance():
    text = sentence(report(8).figures).replace("\u00a0", " ")
    assert text.startswith("Tools are called with strict JSON for 100 % (68 % to 100 %)")
    assert "for 0 % (0 % to 32 %)" in text and text.endswith("The difference is significant.")
    assert sentence(report(1).figures).endswith("The difference is not significant.")
    assert sentence({}) == "No question requires a tool."


def test_significantly_worse_figures_are_named():
    row = {"wanted": 1, "differs": True}
    row["base"] = {"value": 1.0, "low": 0.8, "high": 1.0, "n": 9}
    row["tuned"] = {"value": 0.25, "low": 0.1, "high": 0.5, "n": 9}
    worse = AgentFigure.model_validate(row)
    figures = report(8).figures | {"no_call": worse}
    figures |= {"seconds": AgentFigure.model_validate(row | {"wanted": None})}
    text = sentence(figures).replace("\u00a0", " ")
    assert text.endswith("is significant. Significantly worse: no_call, 100 % to 25 %.")
    figures["no_call"] = AgentFigure.model_validate(row | {"differs": False})
    assert "worse" not in sentence(figures)


def test_marks_follow_the_verdict():
    first, second = report().questions
    assert judged(first.tuned) == [
        ("tool", True),
        ("JSON", True),
        ("arguments", True),
        ("answer", True),
    ]
    assert judged(second.base) == [("no call", False)]


def test_record_keeps_the_keys_of_old_files(tmp_path):
    file = tmp_path / "report.json"
    report(2).write(file)
    values = json.loads(file.read_text())
    assert values.pop("record_version") == 1
    assert set(values["figures"]["strict"]) == {"base", "tuned", "wanted", "differs"}
    assert values["questions"][0]["tuned"]["verdict"]["strict"] is True
    file.write_text(json.dumps(values))  # as written before records had a version
    assert AgentRecord.read(file) == report(2)
