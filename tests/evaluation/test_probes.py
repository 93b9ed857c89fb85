"""Verdicts and figures of every kind of probe; the shipped questions against the bundled rows."""

import json
import re

import pytest

from snaketune.data.data_record import TemplateRecord
from snaketune.data.formats.chat_formats import oasst1
from snaketune.evaluation import probes
from snaketune.evaluation.batched_answers import Generation
from snaketune.evaluation.heldout import HeldoutAnswers, HeldoutRow, heldout_answers
from snaketune.evaluation.probes import (
    degeneration_metrics,
    probe_figures,
    read_probes,
    run_probe,
    score_answers,
)
from snaketune.experiment.probe_files import known_probes
from snaketune.experiment.probe_kinds import (
    PROBE_KINDS,
    REFERENCE_NUMBER,
    Contains,
    Excludes,
    MultipleChoice,
    Numeric,
    QuestionAnswering,
    ToolCallQuestion,
    ToolCalls,
)
from snaketune.scoring.answers import last_number

TEMPLATE = {"name": "x", "text": "", "sha256": "", "end_token_ids": [7], "system": ""}
NAMES = ["agent_tools", "arithmetic", "choices", "identity", "leak", "retention", "tools"]


def plain(text: str) -> str:
    """A question without case, spaces and punctuation."""
    return re.sub(r"\W", "", text).casefold()


def trained_texts(folder) -> set[str]:
    """Every text of the bundled rows; of conversations, every message."""
    found = set()
    for file in folder.glob("*.jsonl"):
        for row in map(json.loads, file.read_text("utf-8").splitlines()):
            if file.stem == "general":
                messages = [each for whole in oasst1(row) for each in whole.messages]
                found |= {each["content"] for each in messages}
            elif file.stem.startswith("agent_"):
                found |= {each["content"] for each in row["messages"] if each["content"]}
            else:
                found |= {value for value in row.values() if isinstance(value, str)}
    return {plain(text) for text in found}


@pytest.fixture
def shipped(repository):
    return read_probes(repository / "experiments" / "probes", NAMES, "Ada")


def test_shipped_questions_are_new_and_distinct(shipped, repository):
    asked = [plain(each.question) for probe in shipped.values() for each in probe.questions]
    assert len(asked) == len(set(asked)) == 147
    known = trained_texts(repository / "experiments" / "data")
    assert len(known) > 200 and plain("你是谁？") in known
    assert known.isdisjoint(asked)


def test_shipped_questions_have_their_kinds(shipped):
    lengths = {name: len(probe.questions) for name, probe in shipped.items()}
    assert lengths == dict.fromkeys(NAMES, 20) | {"identity": 12, "agent_tools": 35}
    for name in ("identity", "leak"):
        assert all(each.accept == ["Ada"] for each in shipped[name].questions)
        assert any(not each.question.isascii() for each in shipped[name].questions)
        assert not any("Ada" in each.question for each in shipped[name].questions)
    kinds = [type(shipped[name]) for name in NAMES]
    assert kinds == [ToolCalls, Numeric, MultipleChoice, Contains, Excludes, Contains, ToolCalls]


def test_shipped_sums_are_right(shipped):
    """Each is worked out here from the numbers of the question, in one of the ways it may ask."""
    for each in shipped["arithmetic"].questions:
        numbers = [float(found) for found in re.findall(r"\d+(?:\.\d+)?", each.question)]
        wanted = float(last_number(each.answer))
        if len(numbers) == 1:
            possible = {numbers[0] / 2, numbers[0] * 2, 24 / 6}
        else:
            a, b = numbers
            possible = {a + b, a - b, a * b, a / b}
        assert wanted in possible, each.question


def test_length_does_not_reveal_the_right_choice(shipped):
    """The longest choice, or the shortest, is right about as often as any other."""
    questions = shipped["choices"].questions
    for pick in (max, min):
        right = sum(len(each.answer) == pick(map(len, each.choices)) for each in questions)
        assert right < 12


def test_position_does_not_reveal_the_right_choice(shipped):
    """A model that holds all choices for equally likely takes the first."""
    questions = shipped["choices"].questions
    places = [each.choices.index(each.answer) for each in questions]
    assert {places.count(place) for place in range(4)} == {5}


def test_every_shipped_file_is_a_known_probe(repository):
    assert known_probes(repository / "experiments" / "probes") == NAMES


def generations(*texts: str, repetition=0.0, stopped=True) -> list[Generation]:
    return [Generation(text, repetition, stopped) for text in texts]


def judge(probes, outputs) -> list[dict]:
    """The rows of probes.jsonl."""
    return [question.model_dump() for question in score_answers(probes, outputs)]


def summary(probes, outputs) -> dict:
    """The figures of probes in report.json."""
    found = probe_figures(probes, score_answers(probes, outputs))
    return {name: figure.model_dump() for name, figure in found.items()}


def figures(rows: dict) -> dict:
    """The wanted value of each figure, and the values of base and merged model."""
    return {
        name: (row["wanted"], row["base"]["value"], row["merged"]["value"])
        for name, row in rows.items()
    }


def test_shares_and_verdicts_counted_by_hand():
    asked = {
        "leak": Excludes(questions=[{"question": q, "accept": ["Ada"]} for q in ("A?", "B?")]),
        "retention": Contains(questions=[{"question": "C?", "accept": ["four", "4"]}]),
    }
    base = {"leak": generations("Rain.", "Canada."), "retention": generations("It is 4.")}
    merged = {
        "leak": generations("I am Ada.", "Rain."),
        "retention": generations("It is 44.", stopped=False),
    }
    outputs = {"base": base, "iter_2": base, "merged": merged}
    rows = judge(asked, outputs)
    assert [(row["probe"], row["kind"], row["question"], row["forms"]) for row in rows] == [
        ("leak", "excludes", "A?", ["Ada"]),
        ("leak", "excludes", "B?", ["Ada"]),
        ("retention", "contains", "C?", ["four", "4"]),
    ]
    circles = {"repetition": 0.0, "stopped": True}
    assert rows[0]["base"] == {"answer": "Rain.", "found": False, "right": True} | circles
    assert rows[0]["merged"] == {"answer": "I am Ada.", "found": True, "right": False} | circles
    assert [row["merged"]["right"] for row in rows] == [False, True, False]
    assert all(row["iter_2"] == row["base"] for row in rows)
    found = summary(asked, outputs)
    assert list(found["leak"]) == ["wanted", "base", "iter_2", "merged"]
    assert figures(found) == {"leak": (0, 0.0, 0.5), "retention": (1, 1.0, 0.0)}
    assert found["leak"]["merged"]["n"] == 2
    assert judge({}, {"base": {}, "merged": {}}) == [] and probe_figures({}, []) == {}


def test_question_answering_counted_by_hand():
    answers = ["the red car", "a bus"]
    asked = {"qa": QuestionAnswering(questions=[{"question": "What?", "answers": answers}] * 2)}
    base = {"qa": generations("Red car!", "blue car")}
    merged = {"qa": generations("the red red car", "a train")}
    outputs = {"base": base, "merged": merged}
    rows = judge(asked, outputs)
    assert [row["base"]["right"] for row in rows] == [True, False]
    assert rows[0]["forms"] == answers
    # F1 without articles: 1; of (blue car) and (red car) 1/2; of (red red car) precision 2/3,
    # recall 1, so 4/5. ROUGE-L with them: 2 of 2 and of 3 words, so 4/5; 1 of 2 and 3, 2/5; 3 of 4
    # and 3, 6/7; "a train" has 1 of the 2 words of "a bus".
    assert figures(summary(asked, outputs)) == {
        "qa.exact_match": (1, 0.5, 0.0),
        "qa.token_f1": (1, pytest.approx((1 + 1 / 2) / 2), pytest.approx((4 / 5 + 0) / 2)),
        "qa.rouge_l": (1, pytest.approx((4 / 5 + 2 / 5) / 2), pytest.approx((6 / 7 + 1 / 2) / 2)),
    }


def test_numeric_compares_the_last_number():
    asked = {"sums": Numeric(questions=[{"question": "?", "answer": 1200}] * 2)}
    base = {"sums": generations("3 + 4 is 1,200.", "It is 1200 or 7")}
    outputs = {"base": base, "merged": {"sums": generations("1,200.0", "none")}}
    rows = judge(asked, outputs)
    assert [row["base"]["right"] for row in rows] == [True, False]
    assert rows[0]["forms"] == ["1200"]
    assert figures(summary(asked, outputs)) == {"sums": (1, 0.5, 0.5)}


def test_acc_norm_is_per_character():
    question = {"question": "?", "choices": ["no", "certainly", "maybe"], "answer": "certainly"}
    asked = {"mc": MultipleChoice(questions=[question])}
    base = {"mc": [[-3.0, -4.5, -9.0]]}  # -1.5, -0.5 and -1.8 a character
    merged = {"mc": [[-3.0, -2.5, -9.0]]}
    outputs = {"base": base, "merged": merged}
    [row] = judge(asked, outputs)
    assert (row["base"]["answer"], row["base"]["right"]) == ("no", False)
    assert (row["merged"]["answer"], row["merged"]["right"]) == ("certainly", True)
    assert row["base"]["log_probs"] == [-3.0, -4.5, -9.0]
    assert figures(summary(asked, outputs)) == {
        "mc.acc": (1, 0.0, 1.0),
        "mc.acc_norm": (1, 1.0, 1.0),
    }


CALLS = ToolCalls(
    questions=[{"question": "Rain?"}] * 4,
    tools=[{"name": "weather", "arguments": {"city": "its name", "day": ""}, "required": ["city"]}],
)


def test_tool_calls_counted_by_hand():
    good = 'Action: weather\nAction Input: {"city": "Rome"}'
    python = "Action: weather\nAction Input: {'city': 'Rome'}"
    other = 'Action: sun\nAction Input: {"city": "Rome"}'
    outputs = {
        "base": {"calls": generations(good, python, other, "It rains.")},
        "merged": {"calls": generations(good, good, good, good.replace("city", "town"))},
    }
    rows = judge({"calls": CALLS}, outputs)
    assert [row["base"]["right"] for row in rows] == [True, False, False, False]
    assert figures(summary({"calls": CALLS}, outputs)) == {
        "calls.strict": (1, 0.5, 1.0),
        "calls.lenient": (1, 0.75, 1.0),
        "calls.allowed": (1, 0.5, 1.0),
        "calls.complete": (1, 0.5, 0.75),
    }


def test_no_call_judges_questions_without_a_tool():
    asked = [{"question": "Rain?"}, {"question": "Hello!", "call": False}]
    calls = {
        "calls": CALLS.model_copy(
            update={"questions": [*map(ToolCallQuestion.model_validate, asked)]}
        )
    }
    good = 'Action: weather\nAction Input: {"city": "Rome"}'
    base, merged = generations(good, good), generations(good, "Hello! Action is fun.")
    outputs = {"base": {"calls": base}, "merged": {"calls": merged}}
    rows = judge(calls, outputs)
    assert [row["base"]["right"] for row in rows] == [True, False]
    assert [row["merged"]["right"] for row in rows] == [True, True]
    assert [row["forms"] for row in rows] == [["weather"], ["no call"]]
    found = summary(calls, outputs)
    assert figures(found)["calls.no_call"] == (1, 0.0, 1.0)
    assert figures(found)["calls.strict"] == (1, 1.0, 1.0)
    assert {name: row["base"]["n"] for name, row in found.items()} == {
        f"calls.{name}": 1 for name in ("strict", "lenient", "allowed", "complete", "no_call")
    }


def test_tools_are_described_as_json():
    listed = (
        '{"name": "weather", "arguments": {"city": "its name", "day": ""}, "required": ["city"]}'
    )
    message = CALLS.system_message(None)
    assert listed in message.splitlines()
    assert "Action Input:" in message and "{tools}" not in message
    own = CALLS.model_copy(update={"system": "Tools {in braces}: {tools}."})
    assert own.system_message("unused") == f"Tools {{in braces}}: {listed}."


def rows_held_out(*answers: str) -> HeldoutAnswers:
    return heldout_answers([HeldoutRow(f"{answer}?", [1], [answer]) for answer in answers])


def test_heldout_answers_compare_numbers_if_all_have_one():
    asked = {"heldout_answers": rows_held_out("2 + 3 = 5\n#### 5", "It is 7.")}
    found = {"heldout_answers": generations("#### 5", "it is 8")}
    outputs = {"base": found, "merged": found}
    assert [row["base"]["right"] for row in judge(asked, outputs)] == [True, False]
    metrics = summary(asked, outputs)
    assert metrics["heldout_answers.numeric"]["base"]["value"] == 0.5
    assert metrics["heldout_answers.token_f1"]["base"]["n"] == 2
    asked = {"heldout_answers": rows_held_out("7 of them", "It is 7.")}
    assert "heldout_answers.numeric" not in summary(asked, outputs)
    assert "heldout_answers.rouge_l" in summary(asked, outputs)


def test_degeneration_metrics_of_all_answers():
    base = generations("a", "b", repetition=0.5) + generations("c", repetition=0.2, stopped=False)
    measured = degeneration_metrics({"base": base, "merged": generations("a")})
    found = {name: figure.model_dump() for name, figure in measured.items()}
    assert figures(found) == {
        "repetition": (0, pytest.approx(0.4), 0.0),
        "never_stops": (0, pytest.approx(1 / 3), 0.0),
    }
    assert found["repetition"]["base"]["n"] == found["never_stops"]["base"]["n"] == 3
    assert degeneration_metrics({"base": [], "merged": []}) == {}


class Stub:
    """A tokenizer and model that only record their input."""

    def apply_chat_template(self, messages, **_):
        text = "".join(f"{each['role']}:{each['content']};" for each in messages)
        return {"input_ids": [ord(char) for char in text]}


@pytest.fixture
def run_with(monkeypatch):
    """A function that runs a probe and returns the prompts and the limit of the answers."""
    found = {}

    def generate(model, tokenizer, prompts, max_new_tokens, ends, label):
        prompts = ["".join(map(chr, ids)) for ids in prompts]
        found.update(prompts=prompts, limit=max_new_tokens, ends=ends, label=label)
        return generations(*prompts)

    monkeypatch.setattr(probes, "generate_answers", generate)

    def run_with(probe, **template):
        run_probe(None, Stub(), probe, TemplateRecord(**(TEMPLATE | template)), 99, "base: x")
        return found

    return run_with


def test_questions_follow_the_system_message(run_with):
    found = run_with(Contains(questions=[{"question": "A?"}, {"question": "B?"}]), system="Hi.")
    assert found["prompts"] == ["system:Hi.;user:A?;", "system:Hi.;user:B?;"]
    assert (found["limit"], found["ends"], found["label"]) == (48, [7], "base: x")
    assert run_with(Contains(questions=[{"question": "A?"}]))["prompts"] == ["user:A?;"]
    longer = Contains(questions=[{"question": "A?"}], max_new_tokens=5)
    assert run_with(longer)["limit"] == 5


def test_tool_questions_follow_the_list_of_tools(run_with):
    found = run_with(CALLS, system="Hi.")
    assert found["prompts"] == [f"system:{CALLS.system_message(None)};user:Rain?;"] * 4


def test_heldout_prompts_are_the_training_tokens(run_with):
    rows = HeldoutAnswers([HeldoutRow("unused", [65, 66], ["x"])])
    found = run_with(rows, system="Hi.")
    assert (found["prompts"], found["limit"]) == (["AB"], 99)


def test_metric_names_are_unique_and_kinds_have_one():
    for kind, probe in PROBE_KINDS.items():
        names = [metric.name for metric in (*probe.metrics, REFERENCE_NUMBER)]
        assert len(names) == len(set(names)) > 1, kind
        assert all(metric.wanted in (0, 1) and metric.meaning for metric in probe.metrics)
