"""Text of models, tools and files for a page: as markdown that does nothing, or as it is.

Streamlit shows no HTML unless told to. What is left is markdown: a picture in it would be fetched
from anywhere as soon as it is shown, which tells its owner who reads what. Here it becomes text;
and the page's Content-Security-Policy (app.py) has the browser fetch nothing from elsewhere,
whatever gets past this.
"""

import re

from markdown_it import MarkdownIt

SHOWN = 5000
"""Characters of a tool's result that the page shows."""

_SPAN = re.compile(r"(?<!`)(`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)\1(?!`)", re.DOTALL)
_PARSER = MarkdownIt("commonmark")


def markdown(text: str) -> str:
    """Return a model's text as markdown without pictures, formulas and Streamlit's own signs.

    Code is left as it is, and line breaks stay: what is compared is what the models wrote.
    """
    text = re.sub(r"\r\n?", "\n", text)
    lines = re.split(r"(?<=\n)", text)
    parts, begin = [], 0
    for block in _PARSER.parse(text):
        if block.type in ("fence", "code_block") and block.map:
            parts.append(_harmless("".join(lines[begin : block.map[0]])))
            parts += lines[block.map[0] : block.map[1]]
            begin = block.map[1]
    return "".join([*parts, _harmless("".join(lines[begin:]))])


def literal(text: str) -> str:
    """Return markdown that shows a text as it is, in one paragraph."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text).replace("\n", "  \n")


def shortened(text: str, limit: int = SHOWN) -> str:
    """Return a text's beginning, and how much was left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n... and {len(text) - limit:,} more characters"


def _harmless(text: str) -> str:
    parts, begin = [], 0
    for span in _SPAN.finditer(text):
        parts += [_without_signs(text[begin : span.start()]), span[0]]
        begin = span.end()
    return "".join([*parts, _without_signs(text[begin:])])


def _without_signs(text: str) -> str:
    text = text.replace("![", "!\\[").replace("$", "\\$").replace(":::", "\\:::")
    text = re.sub(r":(?=[a-zA-Z_]+[\[:/])", r"\\:", text)
    text = re.sub(r"(?<=\d)\*(?=\d)", r"\\*", text)  # 17*23 is no emphasis
    return re.sub(r"(?<=\S)\n(?=\S)", "  \n", text)
