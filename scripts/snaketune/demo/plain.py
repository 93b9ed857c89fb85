"""Text of models, tools and files for a page: as markdown that does nothing, or as it is.

Streamlit shows no HTML unless told to. What is left is markdown: a picture in it would be fetched
from anywhere as soon as it is shown, which tells its owner who reads what. Here it becomes text;
and the page's Content-Security-Policy (app.py) has the browser fetch nothing from elsewhere,
whatever gets past this.
"""

import re

SHOWN = 5000
"""Characters of a tool's result that the page shows."""

_CODE = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)(?P=ticks)(?!`)",
    re.DOTALL | re.MULTILINE,
)


def markdown(text: str) -> str:
    """Return a model's text as markdown without pictures, formulas and Streamlit's own signs.

    Line breaks stay line breaks: what is compared is what the models wrote.
    """
    parts, begin = [], 0
    for code in _CODE.finditer(text):
        parts += [_harmless(text[begin : code.start()]), code[0]]
        begin = code.end()
    return "".join([*parts, _harmless(text[begin:])])


def literal(text: str) -> str:
    """Return markdown that shows a text as it is, in one paragraph."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text).replace("\n", "  \n")


def shortened(text: str, limit: int = SHOWN) -> str:
    """Return a text's beginning, and how much was left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n... and {len(text) - limit:,} more characters"


def _harmless(text: str) -> str:
    text = text.replace("![", "!\\[").replace("$", "\\$")
    text = re.sub(r"(?<=\d)\*(?=\d)", r"\\*", text)  # 17*23 is no emphasis
    text = re.sub(r":(?=[a-zA-Z_]+[\[:/])", r"\\:", text)
    return re.sub(r"(?<=\S)\n(?=\S)", "  \n", text)
