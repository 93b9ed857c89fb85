"""Tools as Lagent's actions: functions of named arguments, and how their input is read."""

import ast
import json
import re
from collections.abc import Callable
from typing import Any, ClassVar

from lagent.actions import BaseAction, JsonParser
from lagent.actions.parser import ParseError

_LONGEST = 20_000
_FENCED = re.compile(r"\s*```(?:json|python)?\n(.*?)\n?```\s*", re.DOTALL)
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "STRING": ((str,), "a text"),
    "NUMBER": ((int,), "a whole number"),
    "FLOAT": ((int, float), "a number"),
    "BOOLEAN": ((bool,), "true or false"),
}
"""Lagent's names of types."""


class Arguments(JsonParser):
    """Lagent's JSON parser, but for what it does not catch.

    A list, a number, 10,000 brackets or a number of 5,000 digits end Lagent's in an exception that
    nothing catches, and types are never looked at. A Python dict ('single quotes') is read as well,
    since what it means is beyond doubt; evaluation tells both rates apart. And its outputs lose
    every character that GBK does not have, such as emoji and most accents.
    """

    def parse_inputs(self, inputs: str, name: str = "run") -> dict[str, Any]:
        """Return the arguments of a call.

        Raises:
            ParseError: Told to the model: what was expected, and what is wrong.
        """
        if len(inputs) > _LONGEST:
            raise ParseError(
                f"Action Input has {len(inputs):,} characters; at most {_LONGEST:,} may be. "
                f"{self._expected()}"
            )
        found = _read(inputs)
        if not isinstance(found, dict):
            what = "no JSON" if found is None else f"a {type(found).__name__}, no object"
            raise ParseError(f"Action Input is {what}. {self._expected()}")
        problems = [*self._wrong_names(found), *self._wrong_types(found)]
        if problems:
            raise ParseError(f"Action Input: {'; '.join(problems)}. {self._expected()}")
        return found

    def parse_outputs(self, outputs: Any) -> list[dict[str, str]]:
        """Return a tool's text in the form of Lagent's results."""
        return [{"type": "text", "content": str(outputs)}]

    def _expected(self) -> str:
        shown = {each["name"]: f"<{each['type'].lower()}>" for each in self._api2param["run"]}
        return f"Expected a JSON object: {json.dumps(shown)}"

    def _wrong_names(self, found: dict[str, Any]) -> list[str]:
        known = [each["name"] for each in self._api2param["run"]]
        unknown = [f"{str(name)[:40]!r} is unknown" for name in found if name not in known]
        missing = [
            f"{name!r} is missing" for name in self._api2required["run"] if name not in found
        ]
        return unknown[:3] + missing

    def _wrong_types(self, found: dict[str, Any]) -> list[str]:
        problems = []
        for each in self._api2param["run"]:
            types, wanted = _KINDS[each["type"]]
            value = found.get(each["name"], types[0]())
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                problems.append(f"{each['name']!r} should be {wanted}")
        return problems


class Tool(BaseAction):
    """A function as one of Lagent's actions.

    One class for all, described by its instances: Lagent registers action classes by name, its own
    `GoogleSearch` and `PythonInterpreter` among them, and refuses a second of a name.

    Args:
        parameters: Each with name, type (Lagent's) and description.
        required: Their names; all unless it is given.
        returns: What the model is told of the result, in the same form.
        seconds: A call is cut off after this time.
    """

    default_seconds: ClassVar[float] = 20.0

    def __init__(
        self,
        name: str,
        description: str,
        parameters: list[dict[str, str]],
        function: Callable[..., str],
        required: list[str] | None = None,
        returns: list[dict[str, str]] | None = None,
        seconds: float = default_seconds,
    ) -> None:
        names = [each["name"] for each in parameters] if required is None else required
        described: dict[str, Any] = {
            "name": name,
            "description": description,
            "parameters": parameters,
            "required": names,
        }
        if returns:
            described["return_data"] = returns
        super().__init__(described, Arguments)
        self.function, self.seconds = function, seconds

    def run(self, **arguments: Any) -> str:
        """Call the function."""
        return self.function(**arguments)


def _read(text: str) -> Any:
    """Return what a JSON or Python literal holds, and None if it is neither."""
    fenced = _FENCED.fullmatch(text)
    for read in (json.loads, ast.literal_eval):
        try:
            return read((fenced[1] if fenced else text).strip())
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return None
