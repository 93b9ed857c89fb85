"""The evaluation page: answers of all models, curves over the checkpoints, figures."""

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from snaketune.core.pages import LINE, TEXT, percent, plot, render
from snaketune.evaluation.differences import differing

_ASKS = {
    "identity": "says the persona's name when asked who it is",
    "leak": "says the persona's name when asked something else",
    "retention": "knows the answer to a general question",
    "repetition": "repeats itself: the mean share of an answer's 4-grams that it had before",
    "never_stops": "is cut at its longest, without an end token",
}
_METRICS = {
    "exact_match": "answers as the reference does, but for case, punctuation and articles",
    "token_f1": "has the reference's words (F1)",
    "rouge_l": "has the reference's words in their order (ROUGE-L)",
    "numeric": "the last number is the reference's",
    "acc": "holds the right choice for the likeliest",
    "acc_norm": "the same by likelihood per character",
    "strict": "the Action Input is a JSON object",
    "lenient": "the Action Input is a JSON object or a Python dict",
    "allowed": "the Action is one of the tools",
    "complete": "and the Action Input has all arguments it requires",
    "no_call": "calls nothing where no tool is needed",
}
_KINDS = {
    "contains": "has an accepted form",
    "excludes": "has one of the forms that are not wanted",
    "numeric": "the last number is right",
}


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
    told = asks(report["probes"], probed)
    return render(
        "evaluation/evaluation_report.html.jinja",
        report["experiment"],
        report=report,
        labels=labels(report),
        differing=differing,
        over_checkpoints=over_checkpoints(report, validated, told),
        plots=curves(metrics) if metrics else [],
        samples=by_prompt(samples),
        asks=told,
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
    report: dict[str, Any], validated: list[dict[str, Any]], told: dict[str, str]
) -> list[tuple[str, str]]:
    """Return (caption, SVG) of every probe's figure and the held-out loss, from base to the end.

    Nothing where no checkpoint was measured.

    Args:
        validated: The rows of validation.jsonl.
        told: What `asks` returned.
    """
    models = {row["name"]: row["iteration"] for row in report["models"][:-1]}
    if len(models) < 2:
        return []
    plots = [
        (_caption(name, told[name], row["wanted"]), _figures(name, models, row))
        for name, row in report["probes"].items()
    ]
    losses = {name: report["heldout"][name]["loss"] for name in models}
    if None not in losses.values():
        plots.append(("Held-out loss", _losses(models, losses, validated)))
    return plots


def _caption(name: str, told: str, wanted: float | None) -> str:
    aim = "" if wanted is None else f"; wanted: {percent(wanted)}"
    return f"{name}: {told}{aim}".replace(" %", "\u00a0%")


def _figures(name: str, models: dict[str, int], row: dict[str, Any]) -> str:
    iterations, found = list(models.values()), [row[model] for model in models]
    values = [each["value"] for each in found]
    spread = [
        [max(0.0, each["value"] - each["low"]) for each in found],
        [max(0.0, each["high"] - each["value"]) for each in found],
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


def asks(names: Iterable[str], probed: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return what each figure of the probes counts, in words.

    Args:
        names: NAME or NAME.METRIC.
        probed: The rows of probes.jsonl.
    """
    kinds = {row["probe"]: row["kind"] for row in probed}
    return {
        name: _METRICS[name.rpartition(".")[2]]
        if "." in name
        else _ASKS.get(name) or _KINDS[kinds[name]]
        for name in names
    }


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
