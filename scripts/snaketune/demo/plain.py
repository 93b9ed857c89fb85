"""Text of models, tools and files for the page: as harmless markdown, or verbatim.

Streamlit shows no HTML by default, but a picture in markdown would be fetched from any host as soon
as it is shown, which tells its owner who reads what. Here it becomes text; whatever gets past this,
the page's Content-Security-Policy (app.py) keeps the browser from fetching.
"""

import re

from markdown_it import MarkdownIt

MAX_CHARACTERS = 5000
"""Of a tool's result on the page."""

# a code span: as many backticks at its end as at its beginning, and no blank line between
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)\1(?!`)", re.DOTALL)
_PARSER = MarkdownIt("commonmark")


def markdown(text: str) -> str:
    """Escape pictures, formulas and Streamlit's directives in a model's markdown.

    Code is unchanged, and line breaks stay, since what the models wrote is compared.
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
    """Escape a text so that markdown shows it verbatim, in one paragraph."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text).replace("\n", "  \n")


def shortened(text: str, limit: int = MAX_CHARACTERS) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n... and {len(text) - limit:,} more characters"


def _harmless(text: str) -> str:
    parts, begin = [], 0
    for span in _CODE_SPAN.finditer(text):
        parts += [_escaped(text[begin : span.start()]), span[0]]
        begin = span.end()
    return "".join([*parts, _escaped(text[begin:])])


def _escaped(text: str) -> str:
    # pictures, formulas, and the blocks (:::), colours, icons and emojis (:name:) of Streamlit
    text = text.replace("![", "!\\[").replace("$", "\\$").replace(":::", "\\:::")
    text = re.sub(r":(?=[a-zA-Z_]+[\[:/])", r"\\:", text)
    text = re.sub(r"(?<=\d)\*(?=\d)", r"\\*", text)  # 17*23*2 is not emphasis
    # two spaces keep a line break, which markdown would join
    return re.sub(r"(?<=\S)\n(?=\S)", "  \n", text)
