"""The agent's page: figures with intervals, and what both models did with each question."""

from typing import Any

from snaketune.agent.agent_metrics import MEANS, SHARES
from snaketune.core.pages import percent, render


def html(report: dict[str, Any]) -> str:
    """Return the page.

    Args:
        report: The content of report.json.
    """
    return render(
        "agent/agent_report.html.jinja",
        f"{report['experiment']}: agent",
        report=report,
        meanings=SHARES | MEANS,
        sentence=sentence(report),
        names=report["models"] | {"base": "base"},  # its id is too wide for a phone
        shown=shown,
        judged=judged,
    )


def sentence(report: dict[str, Any]) -> str:
    """Return the result in words: calls that a program can read, and what the training spoiled."""
    row = report["figures"].get("strict")
    if row is None:
        return "No question needs a tool."
    before, after = (
        f"{percent(row[model]['value'])} ({percent(row[model]['low'])} to "
        f"{percent(row[model]['high'])})"
        for model in ("base", "tuned")
    )
    beyond = "beyond" if row["differs"] else "within"
    told = f"Tools are called with strict JSON for {after} of the questions that need one; "
    told += f"by the base model for {before}. The difference is {beyond} chance."
    if worse := [_change(name, row) for name, row in report["figures"].items() if _is_worse(row)]:
        told += f" Worse beyond chance: {', '.join(worse)}."
    return told.replace(" %", "\u00a0%")


def _is_worse(row: dict[str, Any]) -> bool:
    return bool(row["wanted"] and row["differs"] and row["tuned"]["value"] < row["base"]["value"])


def _change(name: str, row: dict[str, Any]) -> str:
    values = (percent(row[model]["value"]) for model in ("base", "tuned"))
    return f"{name}, {' to '.join(values)}"


def shown(name: str, found: dict[str, float]) -> tuple[str, str]:
    """Return a figure and its interval as text: a share, or a mean of turns or seconds."""
    if name in SHARES:
        low, high = (100 * found[end] for end in ("low", "high"))
        return percent(found["value"]), f"{low:.0f}\u2013{high:.0f} %"
    return f"{found['value']:.1f}", f"{found['low']:.1f}\u2013{found['high']:.1f}"


def judged(row: dict[str, Any], model: str) -> list[tuple[str, bool]]:
    """Return the verdicts of a question in words, and whether each holds."""
    verdict = row[model]["verdict"]
    words = {"chosen": "tool", "strict": "JSON", "complete": "arguments", "no_call": "no call"}
    found = [(word, verdict[name]) for name, word in words.items() if name in verdict]
    return found + ([("answer", verdict["right"])] if "right" in verdict else [])
