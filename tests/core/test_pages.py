"""What all pages share: plots whose colours the style sheet decides."""

import re

import pytest

from snaketune.core.pages import LINES, plot


def test_lines_take_their_colours_from_the_style_sheet():
    def draw(axes):
        for number, colour in enumerate(LINES):
            [line] = axes.plot([0, 1], [number, 2], color=colour)
            line.set_gid(f"line-{number}")

    svg = plot("x", "x", "y", draw, {"line-0": "first & <last>"})
    assert re.findall(r"stroke: var\(--line-(\d)\)", svg) == ["1", "2", "3", "4", "5", "6"]
    assert '<g id="line-0"><title>first &amp; &lt;last&gt;</title>' in svg
    assert not any(colour in svg for colour in LINES)


def luminance(colour: str) -> float:
    """Return WCAG's relative luminance of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_line_can_be_seen_on_its_card(repository, scheme):
    sheet = (repository / "scripts/snaketune/core/page.html.jinja").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", sheet, re.S)
    found = dict(re.findall(r"--([\w-]+): (#\w+)", light if scheme == "light" else dark))
    card = luminance(found["card"])
    for number in range(1, len(LINES) + 1):
        line = luminance(found[f"line-{number}"])
        contrast = (max(line, card) + 0.05) / (min(line, card) + 0.05)
        assert contrast >= 3, (scheme, number)  # WCAG 2.2, 1.4.11: graphical objects
