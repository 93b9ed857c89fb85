"""The files of an agent's questions and canned tools: every mistake is told with its line."""

import pytest

from snaketune.core.errors import UserError
from snaketune.experiment.agent_files import (
    canned_problems,
    question_problems,
    read_canned,
    read_questions,
)
from weather import WEATHER


def test_questions_with_a_tool_and_without(tmp_path):
    file = tmp_path / "q.yaml"
    file.write_text(
        "- {question: 1 + 1?, tool: Arithmetic, accept: ['2', two]}\n"
        "- {question: Hello!, tool: null}\n"
    )
    first, second = read_questions(file)
    assert (first.tool, first.accept) == ("Arithmetic", ["2", "two"])
    assert (second.question, second.tool, second.accept) == ("Hello!", None, [])
    assert question_problems(file) == []


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("- {question: A?, tool: null}\n- {question: B?}", 2, "tool"),
        ("- {question: A?, tool: null}\n- {question: '', tool: null}", 2, "question"),
        ("- {question: A?, tool: null, acept: [x]}", 1, "acept"),
        ("- {question: A?, tool: X, accept: [2]}", 1, "accept"),
        ("[]", 1, "questions"),
        ("- {question: A?, tool: null\n", 1, "q.yaml"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, text, line, told):
    file = tmp_path / "q.yaml"
    file.write_text(text)
    [problem, *_] = question_problems(file)
    assert told in str(problem)
    assert problem.place.line >= line
    with pytest.raises(UserError, match="cannot be used"):
        read_questions(file)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "canned.yaml"


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ({"city": "Oslo"}, "4 degrees, rain"),
        ({"city": " oSLO "}, "4 degrees, rain"),
        ({"city": "Oslo", "days": 1}, "snow"),
    ],
)
def test_equal_arguments_have_their_answer(file, given, result):
    file.write_text(WEATHER)
    assert read_canned(file)[0].answer(**given) == result


@pytest.mark.parametrize("given", [{"city": "Lima"}, {"city": "Oslo", "days": 2}, {}])
def test_other_arguments_are_told_that_nothing_is_known(file, given):
    file.write_text(WEATHER)
    with pytest.raises(ValueError, match="Weather knows nothing about"):
        read_canned(file)[0].answer(**given)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("name: Weather", "nam: Weather", ":2: tools[0].nam: unknown key. Did you mean 'name'?"),
        ("type: string", "type: text", ":5: tools[0].parameters[0].type: "),
        (
            "city: Oslo}, result",
            "town: Oslo}, result",
            "answers[0].input: 'town' is not a parameter",
        ),
        (
            "{city: Oslo, days: 1}",
            "{days: 1}",
            "answers[1].input: required parameter 'city' is missing",
        ),
        ('result: "4 degrees, rain"', "result: 4", ":8: tools[0].answers[0].result: "),
        ("name: Weather", "name: 'Final Answer:'", ":2: tools[0].name: "),
        (WEATHER, "tools: []", ":1: tools: "),
        (WEATHER, "tools: [", ":1"),
        (WEATHER, "tools: 5", ":1: tools: "),
    ],
)
def test_a_mistake_is_told_with_its_place(file, old, new, says):
    assert old in WEATHER
    file.write_text(WEATHER.replace(old, new, 1))
    with pytest.raises(UserError) as told:
        read_canned(file)
    assert says in str(told.value)
    assert str(file) in str(told.value)
    assert says in "\n".join(map(str, canned_problems(file)))


def test_two_of_a_name_are_refused(file):
    file.write_text(WEATHER + WEATHER.removeprefix("tools:\n"))
    with pytest.raises(UserError, match="'Weather' is a duplicate"):
        read_canned(file)


def test_a_file_that_is_not_there_is_told(file):
    with pytest.raises(UserError, match=r"canned\.yaml"):
        read_canned(file)
