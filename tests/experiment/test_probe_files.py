"""Probe files: their forms, and every mistake with its line."""

import importlib.util
import json
import re

import pytest

from snaketune.core.errors import UserError
from snaketune.experiment.probe_files import probe_problems, read_probe, rows_file, task_files
from snaketune.experiment.probe_kinds import (
    PROBE_KINDS,
    Contains,
    Excludes,
    MultipleChoice,
    Numeric,
    ToolCalls,
)


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_list_is_contains_or_excludes_for_leak(write):
    text = "- question: A?\n- {question: B?, accept: [Grace]}"
    mine = read_probe(write(text), "Ada")
    leak = read_probe(write(text, "leak.yaml"), "Ada")
    assert (type(mine), type(leak)) == (Contains, Excludes)
    assert (
        [question.accept for question in mine.questions]
        == [["Ada"], ["Grace"]]
        == [question.accept for question in leak.questions]
    )


def test_kind_key_overrides_name(write):
    text = "kind: contains\nquestions: [{question: A?, accept: [x]}]\nmax_new_tokens: 7"
    found = read_probe(write(text, "leak.yaml"), None)
    assert (type(found), found.max_new_tokens) == (Contains, 7)


ROWS = {
    "contains": {"question": "A?", "accept": ["x"]},
    "excludes": {"question": "A?", "accept": ["x"]},
    "question_answering": {"question": "A?", "answers": ["x"]},
    "multiple_choice": {"question": "A?", "choices": ["x", "y"], "answer": "y"},
    "numeric": {"question": "A?", "answer": 3},
    "tool_calls": {"question": "A?"},
}


@pytest.mark.parametrize("kind", PROBE_KINDS)
def test_questions_from_a_rows_file(write, tmp_path, kind):
    write(json.dumps(ROWS[kind]) + "\n" + json.dumps(ROWS[kind] | {"question": "B?"}), "q.jsonl")
    tools = "\ntools: [{name: x}]" if kind == "tool_calls" else ""
    file = write(f"kind: {kind}\nrows: q.jsonl{tools}")
    probe = read_probe(file, None)
    assert type(probe) is PROBE_KINDS[kind]
    assert [each.question for each in probe.questions] == ["A?", "B?"]
    assert rows_file(file) == tmp_path / "q.jsonl"
    inline = write(f"kind: {kind}\nquestions: [{json.dumps(ROWS[kind])}]{tools}")
    assert read_probe(inline, None).questions == probe.questions[:1]
    assert rows_file(inline) is None


def test_gsm8k_row_is_valid(write):
    write(json.dumps({"question": "?", "answer": "2 + 3 = 5\n#### 5"}), "q.jsonl")
    assert read_probe(write("kind: numeric\nrows: q.jsonl"), None).questions[0].answer[-1] == "5"


@pytest.mark.parametrize(
    ("written", "answer"), [("8", "8"), ("1.5", "1.5"), ("1e-5", "0.00001"), ("'1,200'", "1,200")]
)
def test_number_keeps_its_digits(write, written, answer):
    found = read_probe(
        write(f"kind: numeric\nquestions: [{{question: A?, answer: {written}}}]"), None
    )
    assert isinstance(found, Numeric) and found.questions[0].answer == answer


MISTAKES = {
    "nothing": ("", 1, "", "expected a list, or keys such as `questions:`, found nothing"),
    "no YAML": ("- {question: A?\n- x: [", 2, "", "not valid YAML"),
    "a key twice": ("kind: numeric\nkind: numeric", 2, "", "duplicate key"),
    "unknown kind": (
        "# a comment\nkind: numerc\nquestions: []",
        2,
        "kind",
        "found 'numerc', expected contains, excludes, question_answering, multiple_choice, "
        "numeric, tool_calls. Did you mean 'numeric'?",
    ),
    "a list for a kind": (
        "kind: [numeric]\nquestions: []",
        1,
        "kind",
        "found ['numeric']",
    ),
    "no questions": ("kind: numeric\nquestions: []", 2, "questions", "expected at least one item"),
    "an empty list": ("[]", 1, "questions", "expected at least one item"),
    "no questions at all": ("kind: numeric", 1, "questions", "this required key is missing"),
    "a text for a question": ("- What?", 1, "questions[0]", "expected a mapping"),
    "an empty question": ("- question: ''", 1, "questions[0].question", "at least 1 character"),
    "a number for a question": ("- question: 3", 1, "questions[0].question", "put it in quotes"),
    "a typo": (
        "- {question: A?, accept: [x]}\n- question: A?\n  acept: [x]",
        3,
        "questions[1].acept",
        "unknown key. Did you mean 'accept'?",
    ),
    "a key of another kind": (
        "kind: numeric\nquestions:\n- question: A?\n  answer: 3\n  accept: [x]",
        5,
        "questions[0].accept",
        "unknown key",
    ),
    "no number": (
        "kind: numeric\nquestions:\n- {question: A?, answer: many}",
        3,
        "questions[0].answer",
        "expected a number, or a text that ends in one, found 'many'",
    ),
    "a superscript for a number": (
        "kind: numeric\nquestions:\n- {question: A?, answer: m²}",
        3,
        "questions[0].answer",
        "expected a number",
    ),
    "another answer": (
        "kind: multiple_choice\nquestions:\n- {question: A?, choices: [yes, no], answer: yess}",
        3,
        "questions[0]",
        "answer: 'yess' is not one of the choices. Did you mean 'yes'?",
    ),
    "a choice twice": (
        "kind: multiple_choice\nquestions:\n- {question: A?, choices: [a, a], answer: a}",
        3,
        "questions[0]",
        "contains a duplicate",
    ),
    "no tools": ("kind: tool_calls\nquestions: [{question: A?}]", 1, "tools", "required key"),
    "an argument that is none": (
        "kind: tool_calls\ntools:\n- {name: x, arguments: {city: ''}, required: [cty]}\n"
        "questions: [{question: A?}]",
        3,
        "tools[0]",
        "required: 'cty' is not an argument. Did you mean 'city'? Known: city",
    ),
    "nothing to accept": (
        "- {question: A?, accept: [x]}\n- question: B?",
        2,
        "questions[1]",
        "`accept` is missing, and the data does not teach exactly one name",
    ),
    "both": (
        "kind: numeric\nrows: q.jsonl\nquestions: [{question: A?, answer: 3}]",
        2,
        "rows",
        "use either `questions` or `rows`, not both",
    ),
    "no such rows": ("kind: numeric\nrows: other.jsonl", 2, "rows", "other.jsonl"),
    "rows that are no file": (
        "kind: numeric\nrows: 3",
        2,
        "rows",
        "expected the name of a file in the same folder",
    ),
}


@pytest.mark.parametrize(("text", "line", "key", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_has_its_line(write, text, line, key, words):
    file = write(text)
    [problem] = probe_problems(file, None)
    assert (problem.place.file, problem.place.line, problem.key) == (file, line, key)
    assert words in problem.message
    told = f"probe 'mine' cannot be used:\n  {file}:{line}: "
    with pytest.raises(UserError, match=re.escape(told)):
        read_probe(file, None)


def test_mistake_in_a_row_has_the_row_s_line(write, tmp_path):
    write('{"question": "A?", "answer": 3}\n\n{"question": "B?", "anser": 3}\n', "q.jsonl")
    found = probe_problems(write("kind: numeric\nrows: q.jsonl"), None)
    assert {each.place.file for each in found} == {tmp_path / "q.jsonl"}
    assert {(each.place.line, each.key.split(".")[-1]) for each in found} == {
        (3, "anser"),
        (3, "answer"),
    }


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"retention\.yaml:1: cannot be read"):
        read_probe(tmp_path / "retention.yaml", None)


@pytest.mark.parametrize(
    ("data_files", "found"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("{test: a.jsonl, train: [b.jsonl, c.jsonl]}", ["a.jsonl", "b.jsonl"]),
        ("https://host/a.jsonl", []),
        ("3", []),
    ],
)
def test_harness_task_depends_on_its_data(write, tmp_path, monkeypatch, data_files, found):
    monkeypatch.chdir(tmp_path)
    write("", "a.jsonl"), write("", "b.jsonl")
    file = write(
        f"task: x\ndataset_kwargs: {{data_files: {data_files}}}\nprocess_docs: !function a.b\n"
    )
    assert [each.name for each in task_files(file)] == ["mine.yaml", *found]
    assert task_files(write("task: [", "wrong.yaml")) == [tmp_path / "wrong.yaml"]
    assert task_files(write("task: x", "plain.yaml")) == [tmp_path / "plain.yaml"]


def test_shipped_files_are_valid(repository):
    files = sorted((repository / "experiments" / "probes").glob("*.yaml"))
    kinds = {file.stem: type(read_probe(file, "Ada")) for file in files}
    assert {MultipleChoice, Numeric, ToolCalls, Contains, Excludes} <= set(kinds.values())


def test_check_reports_a_shared_mistake_once(load, repository):
    spec = importlib.util.spec_from_file_location("exps", repository / "scripts/experiments.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    text = "model: tiny\ndata: [{dataset: rows}]\nevaluate: {probes: [mine]}"
    studies = load({"a.yaml": text, "b.yaml": text, "probes/mine.yaml": "- question: A?"})
    assert set(studies.experiments) == {"a", "b"}
    with pytest.raises(
        UserError, match=r"mine\.yaml:1: questions\[0\]: `accept` is missing"
    ) as found:
        program.check(studies)
    assert str(found.value).count("mine.yaml") == 1
