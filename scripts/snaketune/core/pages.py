"""HTML pages: one file each that opens offline, in light and dark, on paper and on phones.

Plots are matplotlib SVGs, as MLflow already brings matplotlib, and they need no script.
"""

from collections.abc import Callable, Mapping
from html import escape
from io import StringIO
from typing import Any

import jinja2
import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes

TEXT, LINE = "#010203", "#010204"
"""Placeholders in an SVG for colours that the page's style sheet sets."""

LINES = tuple(f"#01021{number}" for number in range(1, 7))
"""The same for several lines of one plot, --line-1 and so on; safe for the colour-blind."""


def render(template: str, title: str, **values: Any) -> str:
    """Return a page made of a template of this package, e.g. `data/report.html.jinja`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("snaketune", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(minutes=minutes, mib=mib, count=count, percent=percent)
    return environment.get_template(template).render(title=title, **values)


def plot(
    name: str,
    xlabel: str,
    ylabel: str,
    draw: Callable[[Axes], object],
    titles: Mapping[str, str] | None = None,
) -> str:
    """Render as SVG what `draw` puts on the axes, in the colours LINE and LINES.

    Args:
        name: Seeds the SVG's ids, so that equal figures give equal bytes.
        titles: Tooltips of artists, by their gid.
    """
    style: Any = {f"{part}.color": TEXT for part in ("text", "xtick", "ytick")}
    style |= {"axes.edgecolor": TEXT, "axes.labelcolor": TEXT, "svg.fonttype": "none"}
    style["svg.hashsalt"] = name
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(4.8, 2.6), layout="constrained")
        draw(axes)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, color=TEXT)
        axes.margins(x=0.02)
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(TEXT, "currentColor")
    svg = svg.replace(LINE, "var(--line)")
    for number, stand_in in enumerate(LINES, start=1):
        svg = svg.replace(stand_in, f"var(--line-{number})")
    for gid, title in (titles or {}).items():
        svg = svg.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{escape(title)}</title>')
    return svg


def minutes(seconds: float) -> str:
    """Format a duration, e.g. `1 min 42 s`."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def count(number: int) -> str:
    return f"{number:,}"


def percent(share: float) -> str:
    """Format a share of 1 as a whole percentage."""
    return f"{100 * share:.0f} %"
