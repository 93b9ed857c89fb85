"""The agent's page: figures with intervals, and what both models did with each question."""

from collections.abc import Mapping

from snaketune.agent.agent_metrics import MEANS, SHARES
from snaketune.agent.agent_record import AgentFigure, AgentRecord, AgentTranscript
from snaketune.core.pages import percent, render
from snaketune.scoring.estimate import Estimate

_JUDGED = {
    "chosen": "tool",
    "strict": "JSON",
    "complete": "arguments",
    "no_call": "no call",
    "right": "answer",
}
"""Metrics that are marked below a transcript, and their words there."""


def html(record: AgentRecord) -> str:
    """Render the page."""
    return render(
        "agent/agent_report.html.jinja",
        f"{record.experiment}: agent",
        report=record,
        meanings=SHARES | MEANS,
        sentence=sentence(record.figures),
        names=record.models | {"base": "base"},  # its id is too wide for a phone
        shown=shown,
        judged=judged,
    )


def sentence(figures: Mapping[str, AgentFigure]) -> str:
    """The result in words: calls that a program can read, and what training made worse."""
    strict = figures.get("strict")
    if strict is None:
        return "No question requires a tool."
    before, after = (
        f"{percent(estimate.value)} ({percent(estimate.low)} to {percent(estimate.high)})"
        for estimate in (strict.base, strict.tuned)
    )
    significant = "significant" if strict.differs else "not significant"
    text = (
        f"Tools are called with strict JSON for {after} of the questions that require one, by the "
        f"base model for {before}. The difference is {significant}."
    )
    if worse := [_change(name, row) for name, row in figures.items() if _is_worse(row)]:
        text += f" Significantly worse: {', '.join(worse)}."
    return text.replace(" %", "\u00a0%")


def _is_worse(row: AgentFigure) -> bool:
    return bool(row.wanted and row.differs and row.tuned.value < row.base.value)


def _change(name: str, row: AgentFigure) -> str:
    return f"{name}, {percent(row.base.value)} to {percent(row.tuned.value)}"


def shown(name: str, estimate: Estimate) -> tuple[str, str]:
    """A figure and its interval as text: a share, or a mean of turns or seconds."""
    if name in SHARES:
        low, high = 100 * estimate.low, 100 * estimate.high
        return percent(estimate.value), f"{low:.0f}\u2013{high:.0f} %"
    return f"{estimate.value:.1f}", f"{estimate.low:.1f}\u2013{estimate.high:.1f}"


def judged(transcript: AgentTranscript) -> list[tuple[str, bool]]:
    """The verdicts on a question in words, and whether each is met."""
    verdict = transcript.verdict
    return [(word, bool(verdict[name])) for name, word in _JUDGED.items() if name in verdict]
