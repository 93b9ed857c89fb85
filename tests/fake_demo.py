"""The models and the tool of the demo's tests."""

BASE, TUNED = "base-1", "assistant"

CALL = 'Thought: I look it up.\nAction: Weather\nAction Input: {"city": "Oslo"}'
FINAL = "Thought: I know it now.\nFinal Answer: It is 4 degrees in Oslo."
WEATHER = """\
tools:
  - name: Weather
    description: Tells today's weather in a city.
    parameters: [{name: city, type: string, description: the city's name, required: true}]
    answers: [{input: {city: Oslo}, result: "4 degrees, <b>rain</b> ![](http://127.0.0.1:9/t.png)"}]
"""


def calls_the_weather(model, messages):
    """Answer as an agent does: with a call first, and with its result afterwards."""
    return FINAL if messages[-1]["content"].startswith("Response:") else CALL
