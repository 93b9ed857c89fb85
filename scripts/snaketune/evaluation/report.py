"""The evaluation page: answers of all models, curves over the checkpoints, figures."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from snaketune.evaluation.differences import differing
from snaketune.pages import LINE, TEXT, percent, plot, render

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
    validated: list[dict[str, Any]],
    probed: list[dict[str, Any]],
    resolved: str,
) -> str:
    """Return the page.

    Args:
        report: The content of report.json.
        metrics: The rows of metrics.jsonl.
        samples: The rows of samples.jsonl.
        validated: The rows of validation.jsonl.
        probed: The rows of probes.jsonl.
        resolved: The text of resolved.yaml.
    """
    return render(
        "evaluation/report.html.jinja",
        report["experiment"],
        report=report,
        labels=labels(report),
        differing=differing,
        over_checkpoints=over_checkpoints(report, validated),
        plots=curves(metrics) if metrics else [],
        samples=by_prompt(samples),
        asks=ASKS,
        probed=probed,
        resolved=resolved,
    )


def labels(report: dict[str, Any]) -> dict[str, str]:
    """Return each model's name on the page; of the checkpoint in `merged` also what it is."""
    result = report["checkpoints"]["result"]
    return {
        row["name"]: row["name"]
        if row["name"] in ("base", "merged")
        else f"iteration {row['iteration']}{', not merged' if row['name'] == result else ''}"
        for row in report["models"]
    }


def over_checkpoints(
    report: dict[str, Any], validated: list[dict[str, Any]]
) -> list[tuple[str, str]]:
    """Return (caption, SVG) of every probe's figure and the held-out loss, from base to the end.

    Nothing where no checkpoint was measured.
    """
    models = {row["name"]: row["iteration"] for row in report["models"][:-1]}
    if len(models) < 2:
        return []
    plots = [
        (caption(name, row), _figures(name, models, row)) for name, row in report["probes"].items()
    ]
    losses = {name: report["heldout"][name]["loss"] for name in models}
    if None not in losses.values():
        plots.append(("Held-out loss", _losses(models, losses, validated)))
    return plots


def caption(name: str, row: dict[str, Any]) -> str:
    """Return what a probe's curve shows."""
    aim = "" if row["wanted"] is None else f"; wanted: {percent(row['wanted'])}"
    text = f"{name}: {ASKS[name]}{aim}" if name in ASKS else f"{name}{aim}"
    return text.replace(" %", "\u00a0%")


def _figures(name: str, models: dict[str, int], row: dict[str, Any]) -> str:
    iterations, found = list(models.values()), [row[model] for model in models]
    values = [each["value"] for each in found]
    spread = [
        [each["value"] - each["low"] for each in found],
        [each["high"] - each["value"] for each in found],
    ]

    def draw(axes: Axes) -> None:
        if row["wanted"] is not None:
            axes.axhline(row["wanted"], linestyle=":", color=TEXT, linewidth=1)
            axes.set_ylim(-0.04, 1.04)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.errorbar(iterations, values, spread, color=LINE, marker=".", capsize=3, linewidth=1.4)

    return plot(f"checkpoints {name}", "iteration (0: base)", "", draw)


def _losses(
    models: dict[str, int], losses: dict[str, float], validated: list[dict[str, Any]]
) -> str:
    measured = [models[name] for name in models], [losses[name] for name in models]
    between = [row["iteration"] for row in validated], [row["heldout_loss"] for row in validated]

    def draw(axes: Axes) -> None:
        axes.plot(*between, color=TEXT, linewidth=0.8)
        axes.plot(*measured, color=LINE, marker=".", linewidth=1.4)

    return plot("checkpoints heldout", "iteration (0: base)", "loss", draw)


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
