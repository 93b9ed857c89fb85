"""Nothing in a text does anything on the page but be read."""

import re

import pytest
from markdown_it import MarkdownIt

from snaketune.demo.plain import literal, markdown, shortened

URL = "https://example.org/t.png"
PICTURES = [
    f"![]({URL})",
    f"before ![a picture]({URL} 'title') after",
    f"![a][b]\n\n[b]: {URL}",
    f"![b]\n\n[b]: {URL}",
    f"[![a]({URL})](https://example.org)",
    f"- item\n  ![]({URL})",
    f"> ![]({URL})",
    f"!![]({URL})",
    f"a `tick\n\n![]({URL})\n\nanother ` tick",
    f"```\ncode\n```\n![]({URL})",
    f"````\n```\n````\n![]({URL})",
    f"~~~\ncode\n~~~\n![]({URL}) ~~~",
    f"\\![]({URL})",
    f"- item\n  ```\n![]({URL})",
    f"> ```\n![]({URL})",
    f"a\u2028b\r\n```\r\ncode\r\n```\r\n![]({URL})",
    f"``` a`b\n![]({URL})\n```",
]


def tokens(text):
    """Return the names of everything a CommonMark parser finds in a text."""
    flat = []
    for token in MarkdownIt("commonmark", {"html": True}).parse(text):
        flat += [token, *(token.children or ())]
    return flat


@pytest.mark.parametrize("text", PICTURES)
def test_picture_becomes_text(text):
    assert any(token.type == "image" for token in tokens(text)) or text.startswith("\\")
    assert not [token for token in tokens(markdown(text)) if token.type == "image"]


def test_code_is_unchanged():
    text = "Use `vec![1]` for $5:\n\n```rust\nlet a = vec![$x];\n:smile:\n```\nDone"
    code = [
        token.content for token in tokens(markdown(text)) if token.type.startswith(("co", "fe"))
    ]
    assert code == ["vec![1]", "let a = vec![$x];\n:smile:\n"]


def test_formulas_and_directives_become_text():
    assert markdown("$5 or $6") == "\\$5 or \\$6"
    assert markdown(":red[hot] and :material/home: at 10:30") == (
        "\\:red[hot] and \\:material/home: at 10:30"
    )
    assert markdown("17*23*2 = 782") == "17\\*23\\*2 = 782"


def test_lines_stay_lines_and_markdown_stays_markdown():
    shown = tokens(markdown("one\ntwo\n\n1. **three**"))
    assert {"hardbreak", "ordered_list_open", "strong_open"} <= {token.type for token in shown}


@pytest.mark.parametrize("text", ["*a* _b_ `c` [d](e) ![f](g) <b>h</b> # i $j$ :k: ~l~ | m | \\n"])
def test_literal_shows_every_character(text):
    [paragraph, *_] = [token for token in tokens(literal(text)) if token.type == "inline"]
    assert {child.type for child in paragraph.children} <= {"text", "text_special"}
    assert "".join(child.content for child in paragraph.children) == text


def test_long_text_is_cut_and_says_so():
    assert shortened("a" * 10, 10) == "a" * 10
    cut = shortened("a" * 1_000_000)
    assert len(cut) < 6000
    assert re.search(r"and 995,000 more characters$", cut)
