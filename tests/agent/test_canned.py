"""Tools of a file: what they answer, and that a mistake in the file is told with its line."""

import pytest

from snaketune.agent.canned import read_canned
from snaketune.errors import UserError

WEATHER = """\
tools:
  - name: Weather
    description: Tells today's weather in a city.
    parameters:
      - {name: city, type: string, description: the city's name}
      - {name: days, type: integer, description: how far ahead, required: false}
    answers:
      - {input: {city: Oslo}, result: "4 degrees, rain"}
      - {input: {city: Oslo, days: 1}, result: snow}
"""


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


def test_the_model_calls_it(agent, file, endpoint):
    file.write_text(WEATHER)
    turns = [
        'Action: Weather\nAction Input: {"city": "OSLO"}',
        'Action: Weather\nAction Input: {"city": "Lima"}',
        'Action: Weather\nAction Input: {"city": "Lima", "days": "two"}',
        'Action: Weather\nAction Input: {"city": "Oslo", "days": true}',
        "Final Answer: 4 degrees",
    ]
    answer = agent(turns, canned=file).ask("?")
    assert [step.result for step in answer.steps] == ["4 degrees, rain", "", "", ""]
    assert "knows nothing about" in answer.steps[1].error
    for step in answer.steps[2:]:
        assert "'days' should be a whole number" in step.error
    told = endpoint.asked[0]["messages"][0]["content"]
    assert (
        "{'name': 'Weather', 'description': \"Tells today's weather in a city.\", 'parameters': "
        "[{'name': 'city', 'type': 'STRING', 'description': \"the city's name\"}, "
        "{'name': 'days', 'type': 'NUMBER', 'description': 'how far ahead'}], "
        "'required': ['city'], "
    ) in told
    assert "[['Arithmetic', 'Weather']]" in told


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("name: Weather", "nam: Weather", ":2: tools[0].nam: unknown key. Did you mean 'name'?"),
        ("type: string", "type: text", ":5: tools[0].parameters[0].type: "),
        ("city: Oslo}, result", "town: Oslo}, result", "answers[0].input: 'town' is no parameter"),
        ("{city: Oslo, days: 1}", "{days: 1}", "answers[1].input: 'city' is required and missing"),
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


def test_two_of_a_name_are_refused(agent, file):
    file.write_text(WEATHER.replace("name: Weather", "name: Arithmetic"))
    with pytest.raises(UserError, match=r"two tools are called 'Arithmetic'.*\n.*canned.yaml"):
        agent([], canned=file)
    file.write_text(WEATHER + WEATHER.removeprefix("tools:\n"))
    with pytest.raises(UserError, match="'Weather' is there twice"):
        read_canned(file)


def test_a_file_that_is_not_there_is_told(file):
    with pytest.raises(UserError, match=r"canned\.yaml"):
        read_canned(file)
