"""Verdicts and figures of an agent's answers, counted by hand."""

import pytest

from snaketune.agent.agent_metrics import by_tool, figures, has_one, judge
from snaketune.agent.events import AgentAnswer
from snaketune.client.answer import Step
from snaketune.experiment.agent_files import AgentQuestion

TOOLS = {"Arithmetic": ["expression"], "Trains": ["origin", "destination"]}
SUM = AgentQuestion(question="17 + 4?", tool="Arithmetic", accept=["21"])
HELLO = AgentQuestion(question="Hello!", tool=None)


def step(tool="Arithmetic", text='{"expression": "17 + 4"}', error=None):
    return Step("hm", tool, text, "" if error else "21", error, 0.1)


def answer(*steps, text="It is 21.", finished=True):
    return AgentAnswer(text, list(steps), finished, [])


NONE = step("", "", "no call")
GOOD = {"strict", "lenient", "allowed", "complete", "chosen", "right", "solved"}


@pytest.mark.parametrize(
    ("told", "holds"),
    [
        (answer(step()), GOOD),
        (answer(NONE, step()), GOOD),  # a turn in no form is no call
        (answer(step(text="{'expression': '17 + 4'}")), GOOD - {"strict"}),
        (
            answer(step(text="17 + 4", error="no JSON"), step()),
            {"allowed", "chosen"} | {"right", "solved"},
        ),  # the first call is judged, and the end
        (answer(step(text='{"sum": "17 + 4"}', error="x")), GOOD - {"complete", "solved"}),
        (answer(step("Abacus", error="x")), GOOD - {"allowed", "complete", "chosen", "solved"}),
        (answer(step("Trains", '{"origin": "A"}', "x")), {"strict", "lenient", "allowed", "right"}),
        (answer(), {"right"}),  # by luck, without a tool
        (answer(step(), text="It is 12."), GOOD - {"right", "solved"}),
        (answer(step(), finished=False), GOOD - {"right", "solved"}),
        (answer(NONE, finished=False), set()),
    ],
)
def test_a_question_that_needs_a_tool(told, holds):
    found = judge(SUM, told, 2.5, TOOLS)
    assert {name for name in found if found[name] is True} == holds
    assert found.keys() == GOOD | {"turns", "seconds"}
    assert found["seconds"] == 2.5


def test_turns_are_the_models():
    assert judge(SUM, answer(step(), step()), 1.0, TOOLS)["turns"] == 3
    assert judge(SUM, answer(step(), finished=False), 1.0, TOOLS)["turns"] == 1


def test_a_question_that_needs_no_tool():
    assert judge(HELLO, answer(NONE), 1.0, TOOLS) == {"turns": 2, "seconds": 1.0, "no_call": True}
    assert judge(HELLO, answer(step("Abacus", error="x")), 1.0, TOOLS)["no_call"] is False


@pytest.mark.parametrize(
    ("text", "form", "holds"),
    [
        ("It is 16,188.", "16188", True),
        ("It is 16188", "16188", True),
        ("It is 16,188.", "16,188", True),
        ("It is 116,188.", "16188", False),
        ("It is 16188.5", "16188", False),
        ("In LONDON.", "London", True),
        ("It has -12 degrees.", "-12 degrees", True),
        ("It has 12 degrees.", "-12 degrees", False),
    ],
)
def test_an_answer_has_a_form_whatever_the_commas(text, form, holds):
    assert has_one(text, ["nothing", form]) == holds


def test_each_figure_is_of_the_questions_it_is_judged_by():
    good, bad = (judge(SUM, told, 1.0, TOOLS) for told in (answer(step()), answer(text="No.")))
    hello = judge(HELLO, answer(), 3.0, TOOLS)
    needless = judge(HELLO, answer(step()), 5.0, TOOLS)
    found = figures([bad] * 9 + [needless], [good] * 9 + [hello])
    assert {name: row.tuned.n for name, row in found.items()} == {name: 9 for name in GOOD} | {
        "no_call": 1,
        "turns": 10,
        "seconds": 10,
    }
    strict = found["strict"]
    assert (strict.wanted, strict.base.value, strict.tuned.value) == (1, 0.0, 1.0)
    assert strict.differs and not found["no_call"].differs  # one question tells nothing
    assert found["seconds"].wanted is None
    assert found["seconds"].tuned.value == pytest.approx((9 * 1.0 + 3.0) / 10)
    assert found["turns"].base.value == pytest.approx((9 * 1 + 2) / 10)


def test_a_figure_that_nothing_is_judged_by_is_left_out():
    verdicts = [judge(HELLO, answer(), 1.0, TOOLS)]
    found = figures(verdicts, verdicts)
    assert set(found) == {"no_call", "turns", "seconds"}


def test_right_answers_by_tool():
    trains = AgentQuestion(question="When?", tool="Trains", accept=["9:40"])
    questions = [SUM, SUM, trains, HELLO]
    said = [answer(step()), answer(text="12"), answer(text="9:40"), answer()]
    verdicts = [judge(q, a, 1.0, TOOLS) for q, a in zip(questions, said, strict=True)]
    found = by_tool(questions, verdicts, verdicts)
    assert {tool: (row.tuned.value, row.tuned.n) for tool, row in found.items()} == {
        "Arithmetic": (0.5, 2),
        "Trains": (1.0, 1),
    }
