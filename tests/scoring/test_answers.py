"""Each figure against its reference package, or a case counted by hand."""

import math
import random
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import bootstrap

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
from snaketune.scoring.intervals import average, mean, share


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval by the formula of his paper (1927)."""
    z = 1.959963984540054
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return centre - half, centre + half


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (1, 20), (7, 12), (20, 20), (1, 1)])
def test_a_share_has_wilsons_interval(hits, n):
    found = share([True] * hits + [False] * (n - hits))
    assert (found["value"], found["n"]) == (hits / n, n)
    low, high = wilson(hits, n)
    assert (found["low"], found["high"]) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-12)


def plain_bootstrap(values: list[float]) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of 20,000 resampled means, with Python alone."""
    draw = random.Random(1)
    means = sorted(sum(draw.choices(values, k=len(values))) / len(values) for _ in range(20_000))
    return means[500], means[-501]


@pytest.mark.parametrize("count", [6, 9, 40])
def test_a_mean_has_the_bootstraps_interval(count):
    draw = random.Random(count)
    values = [draw.random() for _ in range(count)]
    found = mean(values)
    assert (found["value"], found["n"]) == (pytest.approx(sum(values) / count), count)
    reference = bootstrap(
        (np.array(values),), np.mean, method="percentile", rng=np.random.default_rng(0), batch=1000
    ).confidence_interval
    assert (found["low"], found["high"]) == pytest.approx((reference.low, reference.high))
    assert (found["low"], found["high"]) == pytest.approx(plain_bootstrap(values), abs=0.01)
    assert found == mean(values)


@pytest.mark.parametrize(
    ("values", "hits"),
    [
        ([0.4], (0, 1)),
        ([0.0] * 20, (0, 0)),
        ([1.0] * 20, (20, 20)),
        ([0.1] * 10, (1, 1)),  # the sum of ten tenths is not quite 1
        ([0.55] * 8, (4, 5)),
        ([0.8, 0.9], (1, 2)),
        ([0.2, 0.4, 0.6, 0.3, 0.2], (1, 2)),
    ],
)
def test_of_few_or_equal_figures_the_interval_is_that_of_so_many_hits(values, hits):
    found = mean(values)
    assert (found["value"], found["n"]) == (pytest.approx(np.mean(values)), len(values))
    low, high = wilson(hits[0], len(values))[0], wilson(hits[1], len(values))[1]
    assert (found["low"], found["high"]) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-12)


def test_few_figures_are_seldom_without_the_mean_they_were_drawn_with():
    draw = random.Random(0)
    for count in (2, 3, 5):
        found = [mean([draw.random() for _ in range(count)]) for _ in range(200)]
        assert sum(each["low"] <= 0.5 <= each["high"] for each in found) >= 190


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
def test_a_form_is_found_as_whole_words(answer, form, has):
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
def test_squads_exact_match_and_f1(answer, truths, exact, f1):
    assert exact_match(answer, truths) is exact
    assert token_f1(answer, truths) == pytest.approx(f1)


def longest_common(one: list[str], other: list[str]) -> int:
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return 1 + longest_common(one[:-1], other[:-1])
    return max(longest_common(one[:-1], other), longest_common(one, other[:-1]))


def test_rouge_l_is_the_packages_and_lins():
    order, words = random.Random(0), ["the", "cat", "sat", "on", "a", "mat"]
    for _ in range(20):
        answer, truth = (order.choices(words, k=6) for _ in range(2))
        same = longest_common(answer, truth) / 6  # precision and recall: both have 6 words
        told, true = " ".join(answer), " ".join(truth)
        assert rouge_l(told, [true]) == pytest.approx(same)
        scorer = RougeScorer(["rougeL"])
        assert rouge_l(told, [true]) == scorer.score(true, told)["rougeL"].fmeasure
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
def test_the_last_number(text, number):
    assert last_number(text) == (None if number is None else Decimal(number))


def test_numeric_answers_are_compared_as_numbers():
    assert numeric_match("It costs 18.00 dollars.", "9 * 2 = <<9*2=18>>18\n#### 18")
    assert not numeric_match("It costs 19.", "#### 18")
    assert not numeric_match("nothing", "nothing")


def test_repetition_counts_the_4_grams_that_were_there_before():
    assert repetition([1, 2, 3]) == 0
    assert repetition([1, 2, 3, 4, 5, 6]) == 0
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert repetition(["no"] * 103) == pytest.approx(0.99)


def test_an_answer_without_an_end_token_never_stops():
    assert never_stops([5, 6, 7], [2])
    assert not never_stops([5, 6, 2], [1, 2])


TOOLS = {"search": {"query"}, "clock": ()}


@pytest.mark.parametrize(
    ("action", "given", "judged"),
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
def test_tool_calls(action, given, judged):
    found = tool_call(f"Thought: hm\nAction: {action}\nAction Input: {given}", TOOLS)
    assert [name for name, holds in found.items() if holds] == judged.split()


def test_an_answer_without_a_call_has_nothing_right():
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
def test_an_action_line_is_a_call(answer, calls):
    assert calls_a_tool(answer) == calls


@pytest.mark.parametrize(
    ("values", "half"),
    [
        ([1.0, 2.0, 3.0], 4.302653 / math.sqrt(3)),  # Student's t of 2 degrees, spread 1
        ([5.0, 5.0], 0.0),
        ([7.0], 0.0),
        ([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 2.364624 * math.sqrt(32 / 7) / math.sqrt(8)),
    ],
)
def test_an_average_has_students_interval(values, half):
    found = average(values)
    middle = sum(values) / len(values)
    assert (found["value"], found["n"]) == (pytest.approx(middle), len(values))
    ends = (middle - half, middle + half)
    assert (found["low"], found["high"]) == pytest.approx(ends, abs=1e-5)


def test_metrics_need_no_torch():
    code = "import sys, snaketune.scoring.answers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
