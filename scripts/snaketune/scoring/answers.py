"""Figures on answers: pure functions of texts and token ids, without torch.

Exact match and token F1 are SQuAD's (Rajpurkar et al. 2016), ROUGE-L is the package rouge-score's,
a numeric answer is the last number of a text, as GSM8K is scored. The first three split words at
spaces or keep Latin letters alone: they are not for Chinese.
"""

import ast
import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"(?:(?<![\w).])[-\u2212])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]")
_ACTION = re.compile(r"(?m)^Action:[ \t]*(.*?)[ \t]*$")
_LABEL = "(?:Observation|Response|Thought|Action|Final Answer):"
_INPUT = re.compile(rf"(?ms)^Action Input:\s*(.*?)\s*(?=^{_LABEL}|<eoa>|\Z)")


def contains(answer: str, form: str) -> bool:
    """Return whether an answer has a form as whole words, in small or capital letters.

    A letter or digit of the Latin alphabet beside it makes another word (Ada, Canada); a Chinese
    character does not, as no spaces are between words there.
    """
    text, wanted = (unicodedata.normalize("NFKC", each).casefold() for each in (answer, form))
    pattern = rf"(?<!\w)(?<!\d[.,]){re.escape(wanted)}(?!\w|[.,]\d)"
    return re.search(pattern, text, re.ASCII) is not None


def exact_match(answer: str, truths: Collection[str]) -> bool:
    """Return whether an answer is one of the truths, but for case, punctuation and articles."""
    return any(_words(answer) == _words(truth) for truth in truths)


def token_f1(answer: str, truths: Collection[str]) -> float:
    """Return the harmonic mean of precision and recall of the words, of the best truth."""
    return max(_f1(_words(answer), _words(truth)) for truth in truths)


def rouge_l(answer: str, truths: Sequence[str]) -> float:
    """Return ROUGE-L's F-measure, without stemming, of the best truth."""
    from rouge_score.rouge_scorer import RougeScorer  # a second and more

    return float(RougeScorer(["rougeL"]).score_multi(truths, answer)["rougeL"].fmeasure)


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text, without the commas between thousands.

    A superscript is none: 30 m\u00b2 is 30.
    """
    found = _NUMBER.findall(unicodedata.normalize("NFKC", _SUPERSCRIPT.sub("", text)))
    return Decimal(found[-1].replace(",", "").replace("\u2212", "-")) if found else None


def numeric_match(answer: str, truth: str) -> bool:
    """Return whether the last numbers of an answer and of the truth are equal."""
    expected = last_number(truth)
    return expected is not None and last_number(answer) == expected


def repetition(tokens: Sequence[int | str]) -> float:
    """Return the share of an answer's 4-grams that it had before: 0 is none, near 1 a loop."""
    grams = [tuple(tokens[start : start + 4]) for start in range(len(tokens) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def never_stops(tokens: Sequence[int], end_token_ids: Collection[int]) -> bool:
    """Return whether an answer was cut at its longest, without an end token."""
    return not any(token in end_token_ids for token in tokens)


def tool_call(answer: str, tools: Mapping[str, Collection[str]]) -> dict[str, bool]:
    """Judge the first `Action:` and `Action Input:` of an answer, as ReAct writes them.

    Args:
        tools: The arguments that each allowed tool requires.

    Returns:
        `strict`: the input is a JSON object; `lenient`: or a Python dict; `allowed`: the tool is
        one of `tools`; `complete`: and the input, read leniently, has all it requires.
    """
    action, given = _ACTION.search(answer), _INPUT.search(answer)
    name, text = (found[1] if found else "" for found in (action, given))
    return called(name, text, tools)


def calls_a_tool(answer: str) -> bool:
    """Return whether an answer has an `Action:` line that names something."""
    found = _ACTION.search(answer)
    return found is not None and found[1] != ""


def called(name: str, text: str, tools: Mapping[str, Collection[str]]) -> dict[str, bool]:
    """Judge a call, as `tool_call` does, by the tool's name and the text of its input."""
    strict = _json_object(text)
    lenient = _python_dict(text) if strict is None else strict
    complete = name in tools and lenient is not None and set(tools[name]) <= lenient.keys()
    return {
        "strict": strict is not None,
        "lenient": lenient is not None,
        "allowed": name in tools,
        "complete": complete,
    }


def _words(text: str) -> list[str]:
    plain = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _f1(answer: list[str], truth: list[str]) -> float:
    if not answer or not truth:
        return float(answer == truth)
    same = (Counter(answer) & Counter(truth)).total()
    return 2 * same / (len(answer) + len(truth))


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _python_dict(text: str) -> dict[Any, Any] | None:
    try:
        found = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
