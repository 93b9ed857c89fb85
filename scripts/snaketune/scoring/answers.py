"""Metrics of answers: pure functions of texts and token ids, without torch.

Exact match and token F1 are SQuAD's (Rajpurkar et al. 2016), ROUGE-L is that of the package
rouge-score, and a numeric answer is the last number of a text, as GSM8K scores it. The first three
split words at spaces or keep Latin letters only, so they are not meaningful for Chinese.
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

# A minus after a letter, digit or bracket is a range or a subtraction: the range 3-5 ends with 5.
_NUMBER = re.compile(r"(?:(?<![\w).])[-\u2212])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]")
_ACTION = re.compile(r"(?m)^Action:[ \t]*(.*?)[ \t]*$")
_LABEL = "(?:Observation|Response|Thought|Action|Final Answer):"
# a model that does not stop invents the next label, or an end-of-action token, after its input
_INPUT = re.compile(rf"(?ms)^Action Input:\s*(.*?)\s*(?=^{_LABEL}|<eoa>|\Z)")


def contains(answer: str, form: str) -> bool:
    """Whether an answer contains a form as whole words, ignoring case.

    An adjacent ASCII letter or digit makes it a different word (Ada, Canada); an adjacent Chinese
    character does not, since Chinese has no spaces between words.
    """
    text, wanted = (unicodedata.normalize("NFKC", raw).casefold() for raw in (answer, form))
    pattern = rf"(?<!\w)(?<!\d[.,]){re.escape(wanted)}(?!\w|[.,]\d)"
    return re.search(pattern, text, re.ASCII) is not None


def exact_match(answer: str, truths: Collection[str]) -> bool:
    """Whether an answer is one of the truths, ignoring case, punctuation and articles."""
    return any(_words(answer) == _words(truth) for truth in truths)


def token_f1(answer: str, truths: Collection[str]) -> float:
    """The harmonic mean of the words' precision and recall, for the best-matching truth."""
    return max(_f1(_words(answer), _words(truth)) for truth in truths)


def rouge_l(answer: str, truths: Sequence[str]) -> float:
    """ROUGE-L's F-measure without stemming, for the best-matching truth."""
    from rouge_score.rouge_scorer import RougeScorer  # importing it takes over a second

    return float(RougeScorer(["rougeL"]).score_multi(truths, answer)["rougeL"].fmeasure)


def last_number(text: str) -> Decimal | None:
    """The last number of a text, read without thousands separators; superscripts do not count.

    30 m\u00b2 is 30: NFKC would turn the superscript into a digit of its own.
    """
    numbers = _NUMBER.findall(unicodedata.normalize("NFKC", _SUPERSCRIPT.sub("", text)))
    return Decimal(numbers[-1].replace(",", "").replace("\u2212", "-")) if numbers else None


def numeric_match(answer: str, truth: str) -> bool:
    expected = last_number(truth)
    return expected is not None and last_number(answer) == expected


def repetition(tokens: Sequence[int | str]) -> float:
    """The share of an answer's 4-grams that repeat an earlier one: 0 is none, near 1 a loop."""
    grams = [tuple(tokens[start : start + 4]) for start in range(len(tokens) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def never_stops(tokens: Sequence[int], end_token_ids: Collection[int]) -> bool:
    """Whether an answer reached the length limit without an end token."""
    return not any(token in end_token_ids for token in tokens)


def tool_call(answer: str, tools: Mapping[str, Collection[str]]) -> dict[str, bool]:
    """Judge the first `Action:` and `Action Input:` of an answer in ReAct format.

    Args:
        tools: The arguments that each allowed tool requires.

    Returns:
        `strict`: the input is a JSON object; `lenient`: a JSON object or a Python dict; `allowed`:
        the tool is one of `tools`; `complete`: and its lenient input has all required arguments.
    """
    matches = _ACTION.search(answer), _INPUT.search(answer)
    name, text = (match[1] if match else "" for match in matches)
    return called(name, text, tools)


def calls_a_tool(answer: str) -> bool:
    """Whether an answer has an `Action:` line that names a tool."""
    match = _ACTION.search(answer)
    return match is not None and match[1] != ""


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
        # json accepts NaN and Infinity, which are not JSON
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _python_dict(text: str) -> dict[Any, Any] | None:
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None  # all that literal_eval raises on malformed or deeply nested text
    return value if isinstance(value, dict) else None


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
