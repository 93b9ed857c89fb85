"""A file with a tool whose answers stand in it."""

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
