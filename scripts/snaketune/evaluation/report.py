"""The evaluation page: one HTML file that opens offline, in light and dark, on paper and phones.

Plots are matplotlib SVGs, as MLflow already brings matplotlib, and they need no script.
"""

from io import StringIO
from typing import Any

import jinja2
import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

_TEXT, _LINE = "#010203", "#010204"
"""Stand-ins in the SVG for colours that the page's style sheet decides."""


def html(
    report: dict[str, Any],
    metrics: list[dict[str, Any]],
    samples: list[dict[str, Any]],
    resolved: str,
) -> str:
    """Return the page.

    Args:
        report: The content of report.json.
        metrics: The rows of metrics.jsonl.
        samples: The rows of samples.jsonl.
        resolved: The text of resolved.yaml.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("snaketune.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(minutes=minutes, mib=mib)
    return environment.get_template("report.html.jinja").render(
        report=report, plots=curves(metrics), samples=by_prompt(samples), resolved=resolved
    )


def curves(metrics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return (caption, SVG) of the training's curves against the iteration."""
    updates = [row for row in metrics if row["update"]]
    return [
        ("Training loss of each update", _plot(updates, "update_loss", "loss")),
        ("Gradient norm before clipping", _plot(updates, "grad_norm", "norm")),
        ("Learning rate", _plot(metrics, "lr", "learning rate")),
        ("Tokens per second", _plot(metrics, "tokens_per_second", "tokens/s")),
    ]


def by_prompt(samples: list[dict[str, Any]]) -> dict[str, list[tuple[int, str]]]:
    """Return each prompt's answers with their iterations, leaving out repeated answers."""
    answers: dict[str, list[tuple[int, str]]] = {}
    for row in samples:
        told = answers.setdefault(row["prompt"], [])
        if not told or told[-1][1] != row["answer"]:
            told.append((row["iteration"], row["answer"]))
    return answers


def minutes(seconds: float) -> str:
    """Return a duration as `1 min 42 s`."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def mib(count: float) -> str:
    """Return bytes as MiB."""
    return f"{count / 2**20:,.0f} MiB"


def _plot(rows: list[dict[str, Any]], key: str, label: str) -> str:
    style: Any = {f"{part}.color": _TEXT for part in ("text", "xtick", "ytick")}
    style |= {"axes.edgecolor": _TEXT, "axes.labelcolor": _TEXT, "svg.fonttype": "none"}
    style["svg.hashsalt"] = key  # else the same figures would give other bytes each time
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(4.8, 2.6), layout="constrained")
        points = [row["iteration"] for row in rows], [row[key] for row in rows]
        axes.plot(*points, color=_LINE, linewidth=1.4, marker="." if len(rows) < 60 else None)
        axes.set(xlabel="iteration", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, color=_TEXT)
        axes.margins(x=0.02)
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_TEXT, "currentColor")
    return svg.replace(_LINE, "var(--line)")
