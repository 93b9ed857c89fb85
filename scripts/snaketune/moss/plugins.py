"""The plugins of MOSS-003: the commands of a model, executed without eval.

A model writes `Calculate("1 + 2"), Search("tallest tower")` or `None`; the results have the form
of MOSS's training rows, in which every failure reads `No result.`.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from snaketune.core.errors import UserError, nearest
from snaketune.moss.equations import solve
from snaketune.toolbox.arithmetic import value
from snaketune.toolbox.web_search import google_results, serper_key

NO_COMMANDS = "None"
NO_RESULT = "No result."
_MAX_CHARACTERS = 4000
_MAX_COMMANDS = 8
_SEARCH_RESULTS, _RESULT_CHARACTERS = 3, 500
"""As in MOSS's rows, which hold three results of a search."""

# The argument ends at the first quote before a closing bracket: models write quotes inside quotes,
# as in Search("what is "AI"?").
_COMMAND = re.compile(r"""\s*(\w+)\(\s*(["'])((?:(?!\2\s*\)).)*)\2\s*\)\s*(?:,|\Z)""", re.DOTALL)
_TURN_MARK = re.compile(r"<(?=[|/]|eo\w>|s>|im_)")
"""The beginning of a mark that ends or begins a turn, MOSS's or a chat template's."""


@dataclass(frozen=True)
class Plugin:
    """A plugin: how the system text declares it, and what runs it.

    Attributes:
        title, api: Of its line in the system text, `- title: enabled. API: api`.
        run: Takes the argument, and numbers for search results, which count through a turn.
        failed: The result if it fails.
    """

    title: str
    api: str
    run: Callable[[str, Iterator[int]], str]
    failed: str

    def declaration(self, enabled: bool) -> str:
        return f"- {self.title}: {f'enabled. API: {self.api}' if enabled else 'disabled.'}"


@dataclass(frozen=True)
class Command:
    """One command: its text as the model wrote it, the plugin's name, and the argument."""

    text: str
    name: str
    argument: str


@dataclass(frozen=True)
class PluginCall:
    """The commands of one turn, executed.

    Attributes:
        commands: As the model wrote them.
        results: What the model reads.
        errors: Why commands failed; the model reads only that there is no result.
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
    texts = google_results(query)[:_SEARCH_RESULTS]
    if not texts:
        raise ValueError("no search results")
    # a web page must not be able to end the results and speak as the model
    harmless = (_TURN_MARK.sub("< ", text[:_RESULT_CHARACTERS]) for text in texts)
    return "".join(f"\n<|{next(numbers)}|>: {text!r}" for text in harmless)


PLUGINS = {
    "search": Plugin("Web search", "Search(query)", _search, f"\n{NO_RESULT}"),
    "calculate": Plugin("Calculator", "Calculate(expression)", _calculate, f" {NO_RESULT!r}"),
    "solve": Plugin("Equation solver", "Solve(equation)", _solve, f"\n{NO_RESULT}"),
}
"""By the name of the command, in the order of MOSS's system text."""

_ALIASES = {"calculator": "calculate", "solver": "solve"}
_UNSUPPORTED = ("Text-to-image", "Image edition", "Text-to-speech")


def read_plugins(names: str) -> list[str]:
    """Parse the names of plugins, separated by commas or spaces.

    Raises:
        UserError: A plugin is unknown, or the search has no key.
    """
    enabled = list(dict.fromkeys(names.replace(",", " ").split()))
    for name in enabled:
        if name not in PLUGINS:
            hint = nearest(name, PLUGINS)
            raise UserError(f"unknown plugin '{name}'.{hint} Known: {', '.join(PLUGINS)}")
    if "search" in enabled:
        serper_key()  # a missing key is an error before a model is loaded
    return enabled


def declare(system: str, enabled: Iterable[str]) -> str:
    """Declare in a system text which plugins are enabled, and that all others are not.

    The lines of a system text of MOSS's are changed; any other text gets them appended.
    """
    enabled = set(enabled)
    lines = [plugin.declaration(name in enabled) for name, plugin in PLUGINS.items()]
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
    return "\n".join([*head, *lines, *(f"- {title}: disabled." for title in _UNSUPPORTED)])


def execute(commands: str, enabled: Iterable[str]) -> PluginCall:
    """Execute the commands of a turn; a failure is a result, too.

    Args:
        commands: `Calculate("1 + 2"), Solve("x = 2")`, or `None`.
        enabled: Names of the plugins that may run.
    """
    started, numbers, errors, enabled = time.monotonic(), count(1), list[str](), set(enabled)

    def result_of(command: Command) -> str:
        plugin = PLUGINS.get(command.name)
        try:
            if plugin is None or command.name not in enabled:
                raise ValueError("plugin not enabled" if plugin else "unknown plugin")
            result = plugin.run(command.argument, numbers)
        except (ValueError, UserError) as error:
            errors.append(f"{command.text[:80]}: {error}")
            result = plugin.failed if plugin else f" {NO_RESULT}"
        return f"{command.text} =>{result}"

    try:
        parsed = parse(commands)
        results = "\n".join(map(result_of, parsed)) if parsed else NO_COMMANDS
    except ValueError as error:  # one error for the turn: nothing of it was executed
        errors.append(str(error))
        results = NO_RESULT
    return PluginCall(commands, results, errors, time.monotonic() - started)


def parse(commands: str) -> list[Command]:
    """Parse the commands of a turn; `None`, also with a remark after it, is no command.

    Raises:
        ValueError: The text is anything but calls with one quoted argument each.
    """
    text = commands.strip()
    if re.match(r"None\b", text):
        return []
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"{len(text):,} characters of commands, the limit is {_MAX_CHARACTERS:,}")
    parsed: list[Command] = []
    position = 0
    while position < len(text) or not parsed:
        match = _COMMAND.match(text, position)
        if match is None or len(parsed) == _MAX_COMMANDS:
            raise ValueError(f"not a command: {text[position : position + 80]!r}")
        name = match[1].lower()
        written = match[0].strip().removesuffix(",").rstrip()
        parsed.append(Command(written, _ALIASES.get(name, name), match[3]))
        position = match.end()
    return parsed
