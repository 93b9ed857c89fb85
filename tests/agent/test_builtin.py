"""The tools of a file beside the built-in ones: what the model is told of them, and may call."""

import pytest

from snaketune.core.errors import UserError
from weather import WEATHER


@pytest.fixture
def file(tmp_path):
    return tmp_path / "canned.yaml"


def test_canned_tool_is_called(agent, file, endpoint):
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


def test_duplicate_tool_names_are_refused(agent, file):
    file.write_text(WEATHER.replace("name: Weather", "name: Arithmetic"))
    with pytest.raises(UserError, match=r"two tools are named 'Arithmetic'.*\n.*canned.yaml"):
        agent([], canned=file)
