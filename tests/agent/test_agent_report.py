"""The agent's page: both transcripts, step by step, as text; figures with their intervals."""

import pytest

from html_page import Page
from snaketune.agent.agent_report import html, judged, sentence
from snaketune.agent.evaluate_agent import tell
from snaketune.experiment.agent_files import AgentQuestion

EVIL = "<script>alert('x')</script>"
QUESTIONS = [
    AgentQuestion(question="17 + 4?", tool="Arithmetic", accept=["21"]),
    AgentQuestion(question=f"Hello {EVIL}", tool=None),
]


def told(text, *steps, finished=True, **verdict):
    return {
        "text": text,
        "finished": finished,
        "steps": list(steps),
        "verdict": {"turns": 2, "seconds": 1.5, **verdict},
    }


def step(tool, text, result="", error=None, thought="I think"):
    return {"thought": thought, "tool": tool, "tool_input": text, "result": result} | {
        "error": error,
        "seconds": 0.1,
    }


def verdict(holds):
    names = ("strict", "lenient", "allowed", "complete", "chosen", "right", "solved")
    return dict.fromkeys(names, holds)


def report(count=1):
    sums = QUESTIONS[0].model_dump() | {
        "base": told("Sorry", step("", "", error="no form"), finished=False, **verdict(False)),
        "tuned": told("It is 21.", step("Arithmetic", f"{{{EVIL}}}", "21"), **verdict(True)),
    }
    hello = QUESTIONS[1].model_dump() | {
        "base": told("Hi.", step("Abacus", "1", error=f"no tool {EVIL}"), no_call=False),
        "tuned": told("Hello!", no_call=True),
    }
    about = {
        "experiment": "agent_tuned",
        "study": "agent",
        "description": "a description",
        "ids": {"base": "base-1", "train": "train-1"},
        "models": {"base": "tiny-1", "tuned": "agent_tuned"},
        "agent": {"max_turn": 4, "max_new_tokens": 128},
        "system": f"You are {EVIL}",
    }
    return about | tell([QUESTIONS[0]] * count + [QUESTIONS[1]], [sums] * count + [hello])


@pytest.fixture(scope="module")
def page():
    return html(report(8))


def test_the_page_needs_nothing_from_elsewhere(page):
    found = Page(page)
    assert found.loaded == [] and "script" not in found.tags
    assert EVIL in found.text


def test_the_transcripts_are_beside_each_other_step_by_step(page):
    row = next(part for part in page.split("<tr>") if "17 + 4?" in part and "data-model" in part)
    base, tuned = row.split('data-model="agent_tuned"')
    assert 'data-model="base"' in base and "no call and no answer" in base and "Sorry" in base
    places = [tuned.index(text) for text in ("I think", "Arithmetic", "<code>", "21</p>", "It is")]
    assert places == sorted(places)
    assert base.count("✗") == 4 and tuned.count("✓") == 4


def test_figures_are_marked_where_intervals_are_apart(page):
    strict = next(part for part in page.split("<tr>") if "<b>strict</b>" in part)
    assert "100\u00a0% *" in strict.replace(" %", "\u00a0%") and 'class="number good"' in strict
    assert "0–32 %" in strict and "68–100 %" in strict  # Wilson's of 0 and 8 of 8
    quiet = next(part for part in page.split("<tr>") if "<b>no_call</b>" in part)
    assert "*" not in quiet and "good" not in quiet


def test_the_sentence_tells_the_rates_and_whether_they_differ():
    told = sentence(report(8)).replace("\u00a0", " ")
    assert told.startswith("Tools are called with strict JSON for 100 % (68 % to 100 %)")
    assert "for 0 % (0 % to 32 %)" in told and told.endswith("beyond chance.")
    assert sentence(report(1)).endswith("within chance.")
    assert sentence({"figures": {}}) == "No question needs a tool."


def test_what_the_training_spoiled_is_told_at_once():
    def ends(value, low, high):
        return {"value": value, "low": low, "high": high, "n": 9}

    row = {"wanted": 1, "base": ends(1.0, 0.8, 1.0), "tuned": ends(0.25, 0.1, 0.5)}
    found = report(8)
    found["figures"]["no_call"] = row | {"differs": True}
    found["figures"]["seconds"] = row | {"wanted": None, "differs": True}
    told = sentence(found).replace("\u00a0", " ")
    assert told.endswith("chance. Worse beyond chance: no_call, 100 % to 25 %.")
    found["figures"]["no_call"]["differs"] = False
    assert "Worse" not in sentence(found)


def test_a_question_is_marked_by_what_it_is_judged_by():
    rows = report()["questions"]
    assert judged(rows[0], "tuned") == [
        ("tool", True),
        ("JSON", True),
        ("arguments", True),
        ("answer", True),
    ]
    assert judged(rows[1], "base") == [("no call", False)]
