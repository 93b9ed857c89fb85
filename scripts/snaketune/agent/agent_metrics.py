"""How well an agent did: verdicts on its calls and answers, and their figures with intervals.

A question that needs a tool is judged by its first call, as it needs no luck with a result; one
that needs none by whether anything was called; each with `accept` by the answer in the end.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from snaketune.agent.events import Answer
from snaketune.experiment.agent_files import AgentQuestion
from snaketune.scoring.answers import called, contains
from snaketune.scoring.intervals import average, share

SHARES = {
    "strict": "a tool is called with a JSON object",
    "lenient": "the same, or with a Python dict",
    "allowed": "the tool that is called is one of those there are",
    "complete": "and it is given all it requires",
    "chosen": "the tool that is called is the one needed",
    "right": "the answer in the end is right",
    "solved": "it is right by the result of a tool, where one is needed",
    "no_call": "nothing is called where no tool is needed",
}
"""The shares of questions, all of them wanted, and what each counts."""

MEANS = {"turns": "turns for a question", "seconds": "seconds for a question"}
"""The means over all questions."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")

Verdict = dict[str, Any]


def judge(
    question: AgentQuestion, answer: Answer, seconds: float, tools: Mapping[str, Collection[str]]
) -> Verdict:
    """Judge what a question led to.

    Args:
        seconds: How long it took.
        tools: The arguments that each tool requires.

    Returns:
        Those of SHARES that the question is judged by, true or false, and MEANS.
    """
    calls = [step for step in answer.steps if step.tool]
    found: Verdict = {"turns": len(answer.steps) + answer.finished, "seconds": seconds}
    if question.tool is None:
        found["no_call"] = not calls
    else:
        name, given = (calls[0].tool, calls[0].tool_input) if calls else ("", "")
        found |= called(name, given, tools) | {"chosen": name == question.tool}
    if question.accept:
        found["right"] = answer.finished and has_one(answer.text, question.accept)
        if question.tool:
            found["solved"] = found["right"] and any(step.error is None for step in calls)
    return found


def has_one(text: str, forms: Sequence[str]) -> bool:
    """Return whether a text has one of some forms as whole words; 16,188 is 16188."""
    plain, *wanted = (_THOUSANDS.sub("", each) for each in (text, *forms))
    return any(contains(plain, form) for form in wanted)


def figures(verdicts: Mapping[str, Sequence[Verdict]]) -> dict[str, dict[str, Any]]:
    """Return each figure of each model with its 95 % interval.

    Args:
        verdicts: By model, of the same questions in the same order.

    Returns:
        By name `wanted` (1, or None of MEANS), by model `value`, `low`, `high` and `n`, and
        `differs`: whether the intervals of the first and last model are apart.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in [*SHARES, *MEANS]:
        measure: Callable[[Any], dict[str, float]] = share if name in SHARES else average
        own = {
            model: [each[name] for each in all_of if name in each]
            for model, all_of in verdicts.items()
        }
        if all(own.values()):
            row = {model: measure(values) for model, values in own.items()}
            first, last = (list(row.values())[index] for index in (0, -1))
            apart = first["high"] < last["low"] or last["high"] < first["low"]
            found[name] = {"wanted": 1 if name in SHARES else None, **row, "differs": apart}
    return found


def by_tool(
    questions: Sequence[AgentQuestion], verdicts: Mapping[str, Sequence[Verdict]]
) -> dict[str, dict[str, Any]]:
    """Return the share of right answers by the tool a question needs, `none` if it needs none."""
    rows: dict[str, dict[str, Any]] = {}
    for tool in dict.fromkeys(each.tool for each in questions):
        own = {
            model: [
                verdict["right"]
                for question, verdict in zip(questions, all_of, strict=True)
                if question.tool == tool and "right" in verdict
            ]
            for model, all_of in verdicts.items()
        }
        if all(own.values()):
            rows[tool or "none"] = {model: share(values) for model, values in own.items()}
    return rows
