"""MOSS's plugins: the commands of a model tuned on MOSS-003, carried out without eval.

A model writes `Calculate("1 + 2"), Search("tallest tower")` or `None`; what it is told is in the
form of MOSS's rows, where whatever goes wrong is `No result.`.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from snaketune.chat.equations import solve
from snaketune.core.errors import UserError, nearest
from snaketune.toolbox.arithmetic import value
from snaketune.toolbox.web_search import google_results, serper_key

NOTHING = "None"
NO_RESULT = "No result."
_CHARACTERS = 4000
_COMMANDS = 8
_PAGES, _PAGE = 3, 500
"""Search: texts that the model is told, as in the rows, and characters of each."""

_COMMAND = re.compile(r"""\s*(\w+)\(\s*(["'])((?:(?!\2\s*\)).)*)\2\s*\)\s*(?:,|\Z)""", re.DOTALL)
_MARK = re.compile(r"<(?=[|/]|eo\w>|s>|im_)")
"""The beginning of what ends or begins a turn, for MOSS and in chat templates."""


@dataclass(frozen=True)
class Plugin:
    """A plugin, by what the system text says of it and how its result is written.

    Attributes:
        title, api: The line of the system text, `- title: enabled. API: api`.
        run: From an argument and the numbers of search results yet to be given to the result.
        failed: What is told when there is no result.
    """

    title: str
    api: str
    run: Callable[[str, Iterator[int]], str]
    failed: str

    def line(self, enabled: bool) -> str:
        """Return what the system text says of it."""
        return f"- {self.title}: {f'enabled. API: {self.api}' if enabled else 'disabled.'}"


@dataclass(frozen=True)
class Command:
    """One call: its text as the model wrote it, the name of the plugin, and the argument."""

    text: str
    name: str
    argument: str


@dataclass(frozen=True)
class Step:
    """A turn in which the model gave commands.

    Attributes:
        commands: As the model wrote them.
        results: What it was told.
        errors: Why a command has no result; the model is told only that there is none.
    """

    commands: str
    results: str
    errors: list[str]
    wall_seconds: float


def _calculate(expression: str, _: Iterator[int]) -> str:
    return f" {str(value(expression.replace('^', '**')))!r}"


def _solve(equations: str, _: Iterator[int]) -> str:
    return "\n" + "\n".join(solve(equations))


def _search(query: str, numbers: Iterator[int]) -> str:
    texts = google_results(query)[:_PAGES]
    if not texts:
        raise ValueError("nothing was found")
    return "".join(f"\n<|{next(numbers)}|>: {_MARK.sub('< ', text[:_PAGE])!r}" for text in texts)


PLUGINS = {
    "search": Plugin("Web search", "Search(query)", _search, f"\n{NO_RESULT}"),
    "calculate": Plugin("Calculator", "Calculate(expression)", _calculate, f" {NO_RESULT!r}"),
    "solve": Plugin("Equation solver", "Solve(equation)", _solve, f"\n{NO_RESULT}"),
}
"""In the order of MOSS's system text."""

_ALSO = {"calculator": "calculate", "solver": "solve"}
_NEVER = ("Text-to-image", "Image edition", "Text-to-speech")


def read_plugins(names: str) -> list[str]:
    """Return the plugins that are named, separated by commas or spaces.

    Raises:
        UserError: There is no such plugin, or the search has no key.
    """
    asked = list(dict.fromkeys(names.replace(",", " ").split()))
    for name in asked:
        if name not in PLUGINS:
            known = ", ".join(PLUGINS)
            raise UserError(f"there is no plugin '{name}'.{nearest(name, PLUGINS)} Known: {known}")
    if "search" in asked:
        serper_key()  # told before a model loads
    return asked


def declare(system: str, enabled: Iterable[str]) -> str:
    """Return a system text that says which plugins there are, and that there are no others.

    The lines of MOSS's own are set as they must be; a text without them gets them at its end.
    """
    enabled = set(enabled)
    lines = [plugin.line(name in enabled) for name, plugin in PLUGINS.items()]
    declared = system
    for plugin, line in zip(PLUGINS.values(), lines, strict=True):
        pattern = rf"^- {plugin.title}: .*$"
        if not re.search(pattern, declared, re.MULTILINE):
            break
        declared = re.sub(pattern, line, declared, flags=re.MULTILINE)
    else:
        return declared
    head = [system.rstrip("\n")] if system else ["You are an AI assistant whose name is MOSS."]
    head += ["Capabilities and tools that MOSS can possess.", "- Inner thoughts: enabled."]
    return "\n".join([*head, *lines, *(f"- {title}: disabled." for title in _NEVER)])


def carry_out(commands: str, enabled: Iterable[str]) -> Step:
    """Carry out the commands of a turn, and return what the model is told.

    Args:
        commands: `Calculate("1 + 2"), Solve("x = 2")`, or `None`.
        enabled: The plugins that are switched on.
    """
    started, numbers, errors, enabled = time.monotonic(), count(1), list[str](), set(enabled)

    def told(command: Command) -> str:
        plugin = PLUGINS.get(command.name)
        try:
            if plugin is None or command.name not in enabled:
                raise ValueError("it is not switched on" if plugin else "there is no such plugin")
            result = plugin.run(command.argument, numbers)
        except (ValueError, UserError) as error:
            errors.append(f"{command.text[:80]}: {error}")
            result = plugin.failed if plugin else f" {NO_RESULT}"
        return f"{command.text} =>{result}"

    try:
        found = parse(commands)
        results = "\n".join(map(told, found)) if found else NOTHING
    except ValueError as error:
        errors.append(str(error))
        results = NO_RESULT
    return Step(commands, results, errors, time.monotonic() - started)


def parse(commands: str) -> list[Command]:
    """Return the commands of a turn; none for `None`, also with a remark behind it.

    Raises:
        ValueError: It is anything else than calls with one quoted text each.
    """
    text = commands.strip()
    if re.match(r"None\b", text):
        return []
    if len(text) > _CHARACTERS:
        raise ValueError(f"the commands have {len(text):,} characters; {_CHARACTERS:,} may be")
    found: list[Command] = []
    position = 0
    while position < len(text) or not found:
        match = _COMMAND.match(text, position)
        if match is None or len(found) == _COMMANDS:
            raise ValueError(f"no command: {text[position : position + 80]!r}")
        name = match[1].lower()
        written = match[0].strip().removesuffix(",").rstrip()
        found.append(Command(written, _ALSO.get(name, name), match[3]))
        position = match.end()
    return found
