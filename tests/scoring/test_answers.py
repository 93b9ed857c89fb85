"""Each metric against its reference package, or a case counted by hand."""

import random
import subprocess
import sys
from decimal import Decimal

import pytest
from rouge_score.rouge_scorer import RougeScorer

from snaketune.scoring.answers import (
    calls_a_tool,
    contains,
    exact_match,
    last_number,
    never_stops,
    numeric_match,
    repetition,
    rouge_l,
    token_f1,
    tool_call,
)


@pytest.mark.parametrize(
    ("answer", "form", "has"),
    [
        ("I am Ada.", "Ada", True),
        ("ADA, at your service", "Ada", True),
        ("Ada's assistant", "Ada", True),
        ("Canada adapts to Adam", "Ada", False),
        ("我是Ada，很高兴", "Ada", True),
        ("我叫小明。", "小明", True),
        ("It is H2O", "H2O", True),
        ("\uff30aris", "Paris", True),
        ("There are 12.", "12", True),
        ("There are 112.", "12", False),
        ("About 12.5 or 1,112", "12", False),
        ("About 0.12", "12", False),
        ("a.b", "a.b", True),
        ("axb", "a.b", False),
    ],
)
def test_forms_match_whole_words(answer, form, has):
    assert contains(answer, form) is has


@pytest.mark.parametrize(
    ("answer", "truths", "exact", "f1"),
    [
        ("The Eiffel Tower.", ["eiffel tower"], True, 1.0),
        ("in the tower", ["Eiffel Tower", "a tower"], False, 2 / 3),  # 1 of 2 and 1 of 1
        ("one two two three", ["two two four"], False, 4 / 7),  # 2 same of 4 and of 3
        ("cat", ["dog"], False, 0.0),
        ("", ["dog"], False, 0.0),
        ("the", [""], True, 1.0),
    ],
)
def test_exact_match_and_f1_are_squads(answer, truths, exact, f1):
    assert exact_match(answer, truths) is exact
    assert token_f1(answer, truths) == pytest.approx(f1)


def longest_common(one: list[str], other: list[str]) -> int:
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return 1 + longest_common(one[:-1], other[:-1])
    return max(longest_common(one[:-1], other), longest_common(one, other[:-1]))


def test_rouge_l_equals_package_and_definition():
    order, words = random.Random(0), ["the", "cat", "sat", "on", "a", "mat"]
    for _ in range(20):
        answer, truth = (order.choices(words, k=6) for _ in range(2))
        same = longest_common(answer, truth) / 6  # precision and recall: both have 6 words
        text, reference = " ".join(answer), " ".join(truth)
        assert rouge_l(text, [reference]) == pytest.approx(same)
        scorer = RougeScorer(["rougeL"])
        assert rouge_l(text, [reference]) == scorer.score(reference, text)["rougeL"].fmeasure
    assert rouge_l("a cat", ["dogs", "a cat"]) == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("So 3 + 4 = 7.", "7"),
        ("She pays $1,234.50 in all", "1234.50"),
        ("from 20 to -5 degrees", "-5"),
        ("the range 3-5", "5"),
        ("minus: \u22128", "-8"),
        ("Some thought.\n#### 72", "72"),
        ("答案是１２个。", "12"),
        ("1234,567", "567"),
        ("100%", "100"),
        ("an area of 30 m\u00b2", "30"),
        ("no number", None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == (None if number is None else Decimal(number))


def test_numeric_answers_compare_as_numbers():
    assert numeric_match("It costs 18.00 dollars.", "9 * 2 = <<9*2=18>>18\n#### 18")
    assert not numeric_match("It costs 19.", "#### 18")
    assert not numeric_match("nothing", "nothing")


def test_repetition_counts_repeated_4_grams():
    assert repetition([1, 2, 3]) == 0
    assert repetition([1, 2, 3, 4, 5, 6]) == 0
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert repetition(["no"] * 103) == pytest.approx(0.99)


def test_answer_without_end_token_never_stops():
    assert never_stops([5, 6, 7], [2])
    assert not never_stops([5, 6, 2], [1, 2])


TOOLS = {"search": {"query"}, "clock": ()}


@pytest.mark.parametrize(
    ("action", "arguments", "verdicts"),
    [
        ("search", '{"query": "rain", "top": 3}', "strict lenient allowed complete"),
        ("search", '{\n  "query": "rain"\n}\nObservation: wet', "strict lenient allowed complete"),
        ("search", '{"query": "rain"}\nResponse:wet', "strict lenient allowed complete"),
        ("search", '{"query": "rain"}\nThought: hm', "strict lenient allowed complete"),
        ("search", '{"query": "rain"}\nAction: clock', "strict lenient allowed complete"),
        ("search", '{"query": "rain"}\nFinal Answer: wet', "strict lenient allowed complete"),
        ("search", '{"query": "rain"} Thought: hm', "allowed"),
        ("search", '{"query": "rain"}<eoa>', "strict lenient allowed complete"),
        ("search", "{'query': 'rain', 'safe': True}", "lenient allowed complete"),
        ("search", '{"q": "rain"}', "strict lenient allowed"),
        ("search", '{"query": NaN}', "allowed"),
        ("search", '["rain"]', "allowed"),
        ("search", '{"query": "rain"', "allowed"),
        ("search", "__import__('os').getcwd()", "allowed"),
        ("search", "{[]: 1}", "allowed"),
        ("search", "[" * 10**5, "allowed"),
        ("clock", "{}", "strict lenient allowed complete"),
        ("paint", '{"query": "rain"}', "strict lenient"),
    ],
)
def test_first_tool_call_is_judged(action, arguments, verdicts):
    judged = tool_call(f"Thought: hm\nAction: {action}\nAction Input: {arguments}", TOOLS)
    assert [name for name, holds in judged.items() if holds] == verdicts.split()


def test_answer_without_call_has_nothing_right():
    assert not any(tool_call("It is late.", TOOLS).values())
    assert not any(tool_call("", TOOLS).values())


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ("Thought: hm\nAction: search\nAction Input: {}", True),
        ("Action: paint", True),
        ("Action:\nAction Input: {}", False),
        ("An Action: search", False),
        ("Action Input: {}", False),
        ("Final Answer: 4", False),
    ],
)
def test_action_line_is_a_call(answer, calls):
    assert calls_a_tool(answer) == calls


def test_scoring_imports_no_torch():
    modules = "answers, snaketune.scoring.intervals, snaketune.scoring.significance"
    code = f"import sys, snaketune.scoring.{modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
