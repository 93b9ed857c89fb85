"""The tools there are: arithmetic, Python, arXiv and Google, and those of a file."""

from collections.abc import Sequence
from pathlib import Path

from snaketune.agent.tools import Tool
from snaketune.core.errors import UserError, nearest
from snaketune.experiment.agent_files import CannedTool, read_canned
from snaketune.toolbox import arithmetic, web_search

_TYPES = {"string": "STRING", "integer": "NUMBER", "number": "FLOAT", "boolean": "BOOLEAN"}


def make_tools(names: Sequence[str], canned: Path | None) -> list[Tool]:
    """Return the named tools and those of a file of canned answers.

    Raises:
        UserError: A name is unknown, something a tool needs is missing, or two are called the same.
    """
    for name in names:
        if name not in _MAKERS:
            hint = nearest(name, _MAKERS)
            raise UserError(f"there is no tool '{name}'.{hint} Known: {', '.join(_MAKERS)}")
    tools = [_MAKERS[name]() for name in dict.fromkeys(names)]
    tools += [_canned(each) for each in (read_canned(canned) if canned else [])]
    taken = [tool.name for tool in tools]
    for name in taken:
        if taken.count(name) > 1:
            raise UserError(f"two tools are called '{name}'.\nFix: rename the one in {canned}")
    if not tools:
        raise UserError(f"an agent needs a tool: name some of {', '.join(_MAKERS)}, or a file")
    return tools


def _arithmetic() -> Tool:
    what = "Evaluates an arithmetic expression such as (17 * 23) / 4 or sqrt(2)."
    return Tool("Arithmetic", what, [_text("expression", "the expression")], arithmetic.evaluate)


def _python() -> Tool:
    from snaketune.toolbox import sandboxed_python

    what = "Runs Python code and returns what it prints and the value of its last line."
    return Tool("PythonInterpreter", what, [_text("code", "the code")], sandboxed_python.run)


def _arxiv() -> Tool:
    """Return the tool with the very words of Lagent's, which the course's models know."""
    name = "ArxivSearch.get_arxiv_article_information"
    what = "Run Arxiv search and get the article meta information."
    found = [
        {"name": "content", "description": "a list of 3 arxiv search papers", "type": "STRING"}
    ]
    query = [_text("query", "the content of search query")]
    return Tool(name, what, query, web_search.arxiv_articles, returns=found)


def _google() -> Tool:
    web_search.serper_key()  # told before the first question
    what = "Searches Google and returns a short answer or the texts of the first results."
    return Tool(
        "GoogleSearch", what, [_text("query", "what to look for")], web_search.google_snippets
    )


_MAKERS = {"arithmetic": _arithmetic, "python": _python, "arxiv": _arxiv, "google": _google}


def _canned(tool: CannedTool) -> Tool:
    parameters = [
        {"name": each.name, "type": _TYPES[each.type], "description": each.description}
        for each in tool.parameters
    ]
    required = [each.name for each in tool.parameters if each.required]
    return Tool(tool.name, tool.description, parameters, tool.answer, required)


def _text(name: str, description: str) -> dict[str, str]:
    return {"name": name, "type": "STRING", "description": description}
