"""The built-in tools. A new one is a function here with `@_tool(...)`, and a test.

Its name in `agent.tools`, in the messages, in the help of chat.py and in docs/reference.md follows
from that. The function's parameters are annotated with what the model reads about them; it returns
text and raises ValueError, whose message the model reads. Imports are inside the functions: the
schema imports this module, and an optional package must not be required by a tool nobody names.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from snaketune.core.errors import UserError
from snaketune.toolbox.web_search import serper_key

Function = Callable[..., str]


@dataclass(frozen=True)
class BuiltinTool:
    """A tool that is part of SnakeTune.

    Attributes:
        name: In experiment files and on the command line.
        shown_as: What the model calls it.
        description: What the model reads about it.
        timeout_seconds: A longer call is abandoned.
        packages: Of the extra `agent`, which must be importable.
        require: Raises UserError if something else is missing, such as a key.
        returns: The name and the description of the result, if the model reads one.
    """

    name: str
    shown_as: str
    description: str
    function: Function
    timeout_seconds: float = 20.0
    packages: tuple[str, ...] = ()
    require: Callable[[], object] | None = None
    returns: tuple[str, str] | None = None

    def check(self) -> None:
        """Raise UserError if something that the tool needs is missing."""
        missing = [name for name in self.packages if not importlib.util.find_spec(name)]
        if missing:
            raise UserError(
                f"the tool '{self.name}' needs {' and '.join(missing)}, not installed here.\n"
                "  Fix: .venv/bin/pip install -e '.[agent]'"
            )
        if self.require:
            self.require()


BUILTIN_TOOLS: dict[str, BuiltinTool] = {}
"""By name."""


def _tool(
    name: str,
    shown_as: str,
    description: str,
    packages: tuple[str, ...] = (),
    require: Callable[[], object] | None = None,
    returns: tuple[str, str] | None = None,
) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        BUILTIN_TOOLS[name] = BuiltinTool(
            name,
            shown_as,
            description,
            function,
            packages=packages,
            require=require,
            returns=returns,
        )
        return function

    return register


@_tool(
    "arithmetic",
    "Arithmetic",
    "Evaluates an arithmetic expression such as (17 * 23) / 4 or sqrt(2).",
)
def _arithmetic(expression: Annotated[str, "the expression"]) -> str:
    from snaketune.toolbox.arithmetic import evaluate

    return evaluate(expression)


@_tool(
    "python",
    "PythonInterpreter",
    "Runs Python code and returns what it prints and the value of its last line.",
    packages=("pydantic_monty",),
)
def _python(code: Annotated[str, "the code"]) -> str:
    from snaketune.toolbox.sandboxed_python import run

    return run(code)


# word for word Lagent's description, which the models of the XTuner course were trained on
@_tool(
    "arxiv",
    "ArxivSearch.get_arxiv_article_information",
    "Run Arxiv search and get the article meta information.",
    packages=("arxiv",),
    returns=("content", "a list of 3 arxiv search papers"),
)
def _arxiv(query: Annotated[str, "the content of search query"]) -> str:
    from snaketune.toolbox.web_search import arxiv_articles

    return arxiv_articles(query)


@_tool(
    "google",
    "GoogleSearch",
    "Searches Google and returns a short answer or the texts of the first results.",
    require=serper_key,
)
def _google(query: Annotated[str, "what to look for"]) -> str:
    from snaketune.toolbox.web_search import google_snippets

    return google_snippets(query)
