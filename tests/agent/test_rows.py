"""The bundled rows of tool use: right results, and the very messages an agent sends."""

import json
import re
from fractions import Fraction

import pytest
from lagent.agents.react import CALL_PROTOCOL_EN

from snaketune.agent import system_prompt
from snaketune.agent.lagent_adapter import ToolAction
from snaketune.agent.tools import make_tools
from snaketune.data.conversation import trim
from snaketune.data.formats.chat_formats import openai
from snaketune.experiment.agent_files import read_questions
from snaketune.experiment.probe_files import read_probe
from tool_rows import TOOLS, asked, canned, exactly, key, offered, read

FAILED = ("know", "no ", "Action Input", "it is no expression")


@pytest.fixture(scope="module")
def folder(repository):
    return repository / "experiments" / "data"


@pytest.fixture(scope="module")
def react(folder):
    return read(folder / "agent_react.jsonl")


@pytest.fixture(scope="module")
def rows(folder, react):
    return react + read(folder / "agent_functions.jsonl")


@pytest.fixture(scope="module")
def known(folder):
    return canned(folder)


def arguments_of(text):
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def should_be(tool, text, known) -> str | Fraction | None:
    """Return the right result of a call, None where it must fail."""
    arguments = arguments_of(text)
    if arguments is None or tool not in TOOLS:
        return None
    if tool != "Arithmetic":
        return known.get((tool, key(arguments)))
    try:
        return exactly(arguments["expression"])
    except (SyntaxError, ZeroDivisionError, AssertionError):
        return None


@pytest.fixture(scope="module")
def trained(rows):
    """All questions of the rows."""
    return [each for row in rows for each in asked(row)]


def test_there_are_enough_varied_rows(rows, react, trained):
    assert len(rows) >= 250 and len(react) >= 150 and len(rows) - len(react) >= 70
    assert len({each.question.casefold() for each in trained}) == len(trained) >= 400
    assert {tool for each in trained for tool, *_ in each.calls} >= set(TOOLS)
    assert sum(not each.calls for each in trained) >= 50
    assert sum(len(each.calls) > 1 for each in trained) >= 40
    assert {len(offered(row)) for row in rows} == {1, 2, 3, 4, 5, 6}
    assert len({tuple(offered(row)) for row in rows}) > 100


def test_every_result_is_right(trained, known):
    failures = 0
    for each in trained:
        for tool, text, result, _ in each.calls:
            right = should_be(tool, text, known)
            if right is None:
                failures += 1
                assert any(sign in result for sign in FAILED), (each.question, result)
            elif isinstance(right, Fraction):
                assert Fraction(result) == right, each.question
            else:
                assert result == right, each.question
    assert failures >= 15


def test_a_mistake_that_is_corrected_is_read_and_not_learned(trained, known):
    corrected = 0
    for each in trained:
        for number, (tool, text, _, learned) in enumerate(each.calls):
            wrong = should_be(tool, text, known) is None and number + 1 < len(each.calls)
            assert learned != wrong, each.question
            corrected += wrong
    assert corrected >= 10


def test_a_tool_is_only_called_if_it_is_offered(rows):
    for row in rows:
        for each in asked(row):
            for tool, _, _, learned in each.calls:
                assert tool in offered(row) or not learned, each.question


def test_the_system_message_is_the_agents(react, folder):
    """Lagent's words, filled in with the tools' descriptions in the order of the row."""
    file = folder / "agent_tools.yaml"
    described = {
        tool.name: ToolAction(tool).description for tool in make_tools(["arithmetic"], file)
    }
    for row in react:
        names = offered(row)
        assert row["messages"][0] == {
            "role": "system",
            "content": CALL_PROTOCOL_EN.format(
                tool_description=[described[name] for name in names],
                action_names=names,
                thought="Thought:",
                action="Action:",
                action_input="Action Input:",
                response="Response:",
                finish="Final Answer:",
            ),
        }


def test_the_functions_are_the_same_tools(rows, folder):
    described = {
        tool.name: ToolAction(tool).description
        for tool in make_tools(["arithmetic"], folder / "agent_tools.yaml")
    }
    told = [tool["function"] for row in rows for tool in row.get("tools", [])]
    assert {each["name"] for each in told} == set(TOOLS)
    for each in told:
        of = described[each["name"]]
        assert each["description"] == of["description"]
        assert list(each["parameters"]["properties"]) == [p["name"] for p in of["parameters"]]
        assert each["parameters"]["required"] == of["required"]


def test_every_question_ends_in_an_answer_in_its_form(rows, react):
    for row in rows:
        [conversation] = openai(row)
        assert trim(conversation) == conversation
        for each in asked(row):
            in_react = each.answer.startswith("Thought: ") and "\nFinal Answer: " in each.answer
            assert each.answer and in_react == (row in react), each.question


def test_the_answer_to_a_sum_has_its_result(trained):
    sums = [each for each in trained if len(each.calls) == 1 and each.calls[0][0] == "Arithmetic"]
    with_result = [each.calls[0][2] in each.answer for each in sums]
    assert len(sums) > 100 and with_result.count(False) == 1  # nothing is divided by zero


@pytest.fixture(scope="module")
def questions(folder):
    return read_questions(folder / "agent_questions.yaml")


@pytest.fixture(scope="module")
def probe(repository):
    return read_probe(repository / "experiments" / "probes" / "agent_tools.yaml", None)


def test_what_is_asked_later_is_in_no_row(trained, questions, probe, folder):
    """Nor in the ordinary conversations that are learned beside the rows."""
    later = [each.question.casefold() for each in [*questions, *probe.questions]]
    assert len(set(later)) == len(later) >= 80
    assert {each.question.casefold() for each in trained}.isdisjoint(later)
    general = (folder / "general.jsonl").read_text("utf-8").casefold()
    assert len(general) > 50_000 and not [each for each in later if each in general]


def test_the_sums_that_are_asked_for_later_are_in_no_row(trained, questions, probe):
    def numbers(text):
        return sorted(re.findall(r"\d+(?:\.\d+)?", text.replace(",", "")))

    texts = [each.question for each in trained]
    texts += [text for each in trained for _, text, *_ in each.calls]
    given = [numbers(text) for text in texts]
    sums = [numbers(each.question) for each in [*questions, *probe.questions]]
    sums = [each for each in sums if len(each) > 1]
    assert len(sums) >= 20 and not [each for each in sums if each in given]


def test_the_arguments_that_are_asked_for_later_are_in_no_row(trained, questions, known):
    """Each canned tool is asked for something that no row has: found by its words in a question."""
    given = {
        value.casefold()
        for each in trained
        for _, text, *_ in each.calls
        for value in (arguments_of(text) or {}).values()
    }
    for question in questions:
        values = [set(json.loads(text).values()) for tool, text in known if tool == question.tool]
        words = question.question.casefold()
        meant = [those for those in values if all(value in words for value in those)]
        assert bool(meant) == (question.tool not in (None, "Arithmetic")), question.question
        assert all(those.isdisjoint(given) for those in meant), question.question


def test_the_questions_are_of_all_kinds(questions):
    by_tool = {tool: sum(each.tool == tool for each in questions) for tool in [None, *TOOLS]}
    assert min(by_tool.values()) >= 3 and by_tool["Arithmetic"] >= 15 and by_tool[None] >= 10
    assert len(questions) >= 40
    assert all(each.accept for each in questions if each.tool)


def test_the_probe_tells_of_the_tools_as_the_agent_does(probe, folder):
    file = folder / "agent_tools.yaml"
    assert probe.system == system_prompt(["arithmetic"], file)
    assert {tool.name: tool.required for tool in probe.tools} == {
        tool.name: tool.required for tool in make_tools(["arithmetic"], file)
    }
    assert sum(not each.call for each in probe.questions) >= 8
