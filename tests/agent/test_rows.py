"""The bundled rows of tool use: right results, and the very messages an agent sends."""

import json
from fractions import Fraction

import pytest
from lagent.agents.react import CALL_PROTOCOL_EN

from snaketune.agent import system_prompt
from snaketune.agent.builtin import make_tools
from snaketune.data.conversation import trim
from snaketune.data.formats import openai
from snaketune.experiment.agent_files import read_questions
from snaketune.experiment.probe_files import read_probe
from tool_rows import TOOLS, asked, calls_of, canned, exactly, key, offered, read

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


def test_there_are_enough_varied_rows(rows, react):
    assert len(rows) >= 250 and len(react) >= 150 and len(rows) - len(react) >= 70
    assert len({asked(row).casefold() for row in rows}) == len(rows)
    assert {tool for row in rows for tool, *_ in calls_of(row)} >= set(TOOLS)
    assert sum(not calls_of(row) for row in rows) >= 40
    assert sum(len(calls_of(row)) > 1 for row in rows) >= 40
    assert {len(offered(row)) for row in rows} == {1, 2, 3, 4, 5, 6}
    assert len({tuple(offered(row)) for row in rows}) > 100


def test_every_result_is_right(rows, known):
    failures = 0
    for row in rows:
        for tool, text, result, _ in calls_of(row):
            right = should_be(tool, text, known)
            if right is None:
                failures += 1
                assert any(sign in result for sign in FAILED), (asked(row), result)
            elif isinstance(right, Fraction):
                assert Fraction(result) == right, asked(row)
            else:
                assert result == right, asked(row)
    assert failures >= 15


def test_a_mistake_that_is_corrected_is_read_and_not_learned(rows, known):
    corrected = 0
    for row in rows:
        calls = calls_of(row)
        for number, (tool, text, _, learned) in enumerate(calls):
            wrong = should_be(tool, text, known) is None and number + 1 < len(calls)
            assert learned != wrong, asked(row)
            corrected += wrong
    assert corrected >= 10


def test_a_tool_is_only_called_if_it_is_offered(rows):
    for row in rows:
        for tool, _, _, learned in calls_of(row):
            assert tool in offered(row) or not learned, asked(row)


def test_the_system_message_is_the_agents(react, folder):
    """Lagent's words, filled in with the tools' descriptions in the order of the row."""
    file = folder / "agent_tools.yaml"
    described = {tool.name: tool.description for tool in make_tools(["arithmetic"], file)}
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
        tool.name: tool.description
        for tool in make_tools(["arithmetic"], folder / "agent_tools.yaml")
    }
    told = [tool["function"] for row in rows for tool in row.get("tools", [])]
    assert {each["name"] for each in told} == set(TOOLS)
    for each in told:
        of = described[each["name"]]
        assert each["description"] == of["description"]
        assert list(each["parameters"]["properties"]) == [p["name"] for p in of["parameters"]]
        assert each["parameters"]["required"] == of["required"]


def test_every_row_ends_in_an_answer_in_its_form(rows, react):
    for row in rows:
        [conversation] = openai(row)
        assert trim(conversation) == conversation
        last = row["messages"][-1]["content"]
        assert last and row["messages"][-1]["role"] == "assistant"
        if row in react:
            thought, answer = last.split("\n", 1)
            assert thought.startswith("Thought: ") and answer.startswith("Final Answer: ")


def test_the_answer_to_a_sum_has_its_result(rows):
    for row in rows:
        calls = calls_of(row)
        if len(calls) == 1 and calls[0][0] == "Arithmetic" and calls[0][2][0] in "-0123456789":
            assert calls[0][2] in row["messages"][-1]["content"], asked(row)


@pytest.fixture(scope="module")
def questions(folder):
    return read_questions(folder / "agent_questions.yaml")


@pytest.fixture(scope="module")
def probe(repository):
    return read_probe(repository / "experiments" / "probes" / "agent_tools.yaml", None)


def test_what_is_asked_later_is_in_no_row(rows, questions, probe):
    later = [each.question.casefold() for each in [*questions, *probe.questions]]
    assert len(set(later)) == len(later) >= 80
    assert {asked(row).casefold() for row in rows}.isdisjoint(later)


def test_the_arguments_that_are_asked_for_later_are_in_no_row(rows, questions, known):
    """Each canned tool is asked for something that no row has: found by its words in a question."""
    trained = {
        value.casefold()
        for row in rows
        for _, text, *_ in calls_of(row)
        for value in (arguments_of(text) or {}).values()
    }
    for question in questions:
        values = [set(json.loads(text).values()) for tool, text in known if tool == question.tool]
        words = question.question.casefold()
        meant = [those for those in values if all(value in words for value in those)]
        assert bool(meant) == (question.tool not in (None, "Arithmetic")), question.question
        assert all(those.isdisjoint(trained) for those in meant), question.question


def test_the_questions_are_of_all_kinds(questions):
    by_tool = {tool: sum(each.tool == tool for each in questions) for tool in [None, *TOOLS]}
    assert min(by_tool.values()) >= 3 and by_tool["Arithmetic"] >= 15 and by_tool[None] >= 10
    assert len(questions) >= 40
    assert all(each.accept for each in questions if each.tool)


def test_the_probe_tells_of_the_tools_as_the_agent_does(probe, folder):
    file = folder / "agent_tools.yaml"
    assert probe.system == system_prompt(["arithmetic"], file)
    assert {tool.name: tool.required for tool in probe.tools} == {
        tool.name: tool.description["required"] for tool in make_tools(["arithmetic"], file)
    }
    assert sum(not each.call for each in probe.questions) >= 8
