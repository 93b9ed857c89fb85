"""The evaluation page: answers of both models, curves, figures."""

from typing import Any

from snaketune.pages import LINE, plot, render

ASKS = {
    "identity": "says the persona's name when asked who it is",
    "leak": "says the persona's name when asked something else",
    "retention": "knows the answer to a general question",
}
"""What a probe's share counts, in words."""


def html(
    report: dict[str, Any],
    metrics: list[dict[str, Any]],
    samples: list[dict[str, Any]],
    probed: list[dict[str, Any]],
    resolved: str,
) -> str:
    """Return the page.

    Args:
        report: The content of report.json.
        metrics: The rows of metrics.jsonl.
        samples: The rows of samples.jsonl.
        probed: The rows of probes.jsonl.
        resolved: The text of resolved.yaml.
    """
    return render(
        "evaluation/report.html.jinja",
        report["experiment"],
        report=report,
        plots=curves(metrics) if metrics else [],
        samples=by_prompt(samples),
        asks=ASKS,
        probed=probed,
        resolved=resolved,
    )


def curves(metrics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return (caption, SVG) of the training's curves against the iteration."""
    updates = [row for row in metrics if row["update"]]
    return [
        ("Training loss of each update", _curve(updates, "update_loss", "loss")),
        ("Gradient norm before clipping", _curve(updates, "grad_norm", "norm")),
        ("Learning rate", _curve(metrics, "lr", "learning rate")),
        ("Tokens per second", _curve(metrics, "tokens_per_second", "tokens/s")),
    ]


def by_prompt(samples: list[dict[str, Any]]) -> dict[str, list[tuple[int, str]]]:
    """Return each prompt's answers with their iterations, leaving out repeated answers."""
    answers: dict[str, list[tuple[int, str]]] = {}
    for row in samples:
        told = answers.setdefault(row["prompt"], [])
        if not told or told[-1][1] != row["answer"]:
            told.append((row["iteration"], row["answer"]))
    return answers


def _curve(rows: list[dict[str, Any]], key: str, label: str) -> str:
    points = [row["iteration"] for row in rows], [row[key] for row in rows]
    marker = "." if len(rows) < 60 else None
    return plot(
        key,
        "iteration",
        label,
        lambda axes: axes.plot(*points, color=LINE, linewidth=1.4, marker=marker),
    )
