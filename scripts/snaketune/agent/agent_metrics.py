"""Metrics of an agent's calls and answers, with confidence intervals.

A question that requires a tool is judged by its first call, which depends on no tool result; one
that requires none by whether a tool was called; each with `accept` by the final answer.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from snaketune.agent.agent_record import AgentFigure, AgentVerdict, BaseAndTuned
from snaketune.agent.events import AgentAnswer
from snaketune.experiment.agent_files import AgentQuestion
from snaketune.scoring.answers import called, contains
from snaketune.scoring.estimate import Estimate
from snaketune.scoring.intervals import average, share

SHARES = {
    "strict": "a tool is called with a JSON object",
    "lenient": "the same, or with a Python dict",
    "allowed": "the called tool exists",
    "complete": "and it gets all arguments it requires",
    "chosen": "the called tool is the required one",
    "right": "the final answer is right",
    "solved": "it is right by the result of a tool, where one is required",
    "no_call": "nothing is called where no tool is required",
}
"""Shares of questions, the higher the better, and what each counts."""

MEANS = {"turns": "turns for a question", "seconds": "seconds for a question"}
"""Means over all questions."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def judge(
    question: AgentQuestion,
    answer: AgentAnswer,
    seconds: float,
    tools: Mapping[str, Collection[str]],
) -> AgentVerdict:
    """Judge what a question led to: MEANS, and those of SHARES that apply to it.

    Args:
        seconds: How long it took.
        tools: The required arguments of each tool.
    """
    calls = [step for step in answer.steps if step.tool]
    verdict: AgentVerdict = {"turns": len(answer.steps) + answer.finished, "seconds": seconds}
    if question.tool is None:
        verdict["no_call"] = not calls
    else:
        name, arguments = (calls[0].tool, calls[0].tool_input) if calls else ("", "")
        verdict |= called(name, arguments, tools) | {"chosen": name == question.tool}
    if question.accept:
        right = answer.finished and has_one(answer.text, question.accept)
        verdict["right"] = right
        if question.tool:
            verdict["solved"] = right and any(step.error is None for step in calls)
    return verdict


def has_one(text: str, forms: Sequence[str]) -> bool:
    """Whether a text has one of some forms as whole words; 16,188 is 16188."""
    plain, *wanted = (_THOUSANDS.sub("", part) for part in (text, *forms))
    return any(contains(plain, form) for form in wanted)


def figures(base: Sequence[AgentVerdict], tuned: Sequence[AgentVerdict]) -> dict[str, AgentFigure]:
    """Each metric of both models.

    Args:
        base, tuned: Verdicts on the same questions in the same order.
    """
    rows = {}
    for name in [*SHARES, *MEANS]:
        estimates = [_estimate(name, verdicts) for verdicts in (base, tuned)]
        if estimates[0] and estimates[1]:
            rows[name] = AgentFigure(
                base=estimates[0],
                tuned=estimates[1],
                wanted=1 if name in SHARES else None,
                differs=estimates[0].differs_from(estimates[1]),
            )
    return rows


def by_tool(
    questions: Sequence[AgentQuestion],
    base: Sequence[AgentVerdict],
    tuned: Sequence[AgentVerdict],
) -> dict[str, BaseAndTuned]:
    """The share of right answers by the tool a question requires, `none` if it requires none."""
    rows = {}
    for tool in dict.fromkeys(question.tool for question in questions):
        estimates = [
            _estimate(
                "right",
                [
                    verdict
                    for question, verdict in zip(questions, verdicts, strict=True)
                    if question.tool == tool
                ],
            )
            for verdicts in (base, tuned)
        ]
        if estimates[0] and estimates[1]:
            rows[tool or "none"] = BaseAndTuned(base=estimates[0], tuned=estimates[1])
    return rows


def _estimate(name: str, verdicts: Sequence[AgentVerdict]) -> Estimate | None:
    """Estimate a metric from the questions that it applies to, None if there are none."""
    values = [verdict[name] for verdict in verdicts if name in verdict]
    if not values:
        return None
    measured = share([bool(value) for value in values]) if name in SHARES else average(values)
    return Estimate.model_validate(measured)
