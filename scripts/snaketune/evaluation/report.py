"""The evaluation page: answers of both models, curves, figures."""

from collections.abc import Iterable, Sequence
from typing import Any

from snaketune.pages import LINE, plot, render

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
        asks=asks(report["probes"], probed),
        probed=probed,
        resolved=resolved,
    )


def asks(names: Iterable[str], probed: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return what each figure of the probes counts, in words.

    Args:
        names: NAME or NAME.METRIC.
        probed: The rows of probes.jsonl.
    """
    kinds = {row["probe"]: row["kind"] for row in probed}
    return {
        name: _ASKS.get(name) or _METRICS.get(name.rpartition(".")[2]) or _KINDS[kinds[name]]
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
