"""Questions, verdicts and shares; the shipped questions against the bundled rows."""

import json
import re

import pytest

from snaketune.data.formats import oasst1
from snaketune.errors import UserError
from snaketune.evaluation import probes
from snaketune.evaluation.probes import Question, ask, judge, read_probes, summary
from snaketune.experiment.schema import Evaluate

NAMES = ["identity", "leak", "retention"]


def plain(text: str) -> str:
    """Return a question without case, spaces and punctuation."""
    return re.sub(r"\W", "", text).casefold()


def trained_texts(folder) -> set[str]:
    """Return every text of the bundled rows, of conversations each message."""
    found = set()
    for file in folder.glob("*.jsonl"):
        for row in map(json.loads, file.read_text("utf-8").splitlines()):
            if file.stem == "general":
                messages = [each for whole in oasst1(row) for each in whole.messages]
                found |= {each["content"] for each in messages}
            else:
                found |= {value for value in row.values() if isinstance(value, str)}
    return {plain(text) for text in found}


@pytest.fixture
def shipped(repository):
    return read_probes(repository / "experiments" / "probes", NAMES, "Ada")


def test_no_shipped_question_is_a_training_row_or_asked_twice(shipped, repository):
    asked = [plain(each.question) for questions in shipped.values() for each in questions]
    assert len(asked) == len(set(asked)) > 50
    known = trained_texts(repository / "experiments" / "data")
    assert len(known) > 200 and plain("你是谁？") in known
    assert known.isdisjoint(asked)


def test_the_shipped_questions_ask_for_what_they_should(shipped):
    assert {len(shipped["identity"]), len(shipped["leak"]), len(shipped["retention"])} == {12, 20}
    for name in ("identity", "leak"):
        assert all(each.accept == ["Ada"] for each in shipped[name])
        assert any(not each.question.isascii() for each in shipped[name])
    assert not any("Ada" in each.question for each in shipped["identity"] + shipped["leak"])


def test_every_probe_that_may_be_asked_for_is_shipped_and_has_an_aim(repository):
    assert Evaluate(probes=NAMES).probes == list(probes.WANTED) == NAMES
    folder = repository / "experiments" / "probes"
    assert sorted(file.stem for file in folder.iterdir()) == NAMES


def test_shares_and_verdicts_counted_by_hand():
    asked = {
        "leak": [Question(question=q, accept=["Ada"]) for q in ("A?", "B?")],
        "retention": [Question(question="C?", accept=["four", "4"])],
    }
    base = {"leak": ["Rain.", "Canada."], "retention": ["It is 4."]}
    merged = {"leak": ["I am Ada.", "Rain."], "retention": ["It is 44."]}
    rows = judge(asked, {"base": base, "iter_2": base, "merged": merged})
    assert [(row["probe"], row["question"], row["forms"]) for row in rows] == [
        ("leak", "A?", ["Ada"]),
        ("leak", "B?", ["Ada"]),
        ("retention", "C?", ["four", "4"]),
    ]
    assert rows[0]["base"] == {"answer": "Rain.", "found": False, "right": True}
    assert rows[0]["merged"] == {"answer": "I am Ada.", "found": True, "right": False}
    assert [row["merged"]["right"] for row in rows] == [False, True, False]
    assert all(row["iter_2"] == row["base"] for row in rows)
    told = summary(asked, rows)
    assert list(told["leak"]) == ["wanted", "base", "iter_2", "merged"]
    shares = {
        name: (row["wanted"], row["base"]["value"], row["merged"]["value"], row["merged"]["n"])
        for name, row in told.items()
    }
    assert shares == {"leak": (0, 0.0, 0.5, 2), "retention": (1, 1.0, 0.0, 1)}
    assert judge({}, {"base": {}, "merged": {}}) == [] and summary({}, []) == {}


def test_questions_are_asked_in_batches_and_answered_in_order(monkeypatch):
    batches = []

    def answer(model, tokenizer, prompts, max_new_tokens, template):
        batches.append(len(prompts))
        return [f"{prompt} {max_new_tokens}" for prompt in prompts]

    monkeypatch.setattr(probes, "answer", answer)
    asked = [Question(question=f"Q{index}") for index in range(45)]
    assert ask(None, None, asked, {}) == [f"Q{index} 48" for index in range(45)]
    assert batches == [20, 20, 5]


def test_the_name_is_what_is_looked_for_where_a_question_says_nothing_else(tmp_path):
    (tmp_path / "leak.yaml").write_text("- question: A?\n- {question: B?, accept: [Grace]}")
    found = read_probes(tmp_path, ["leak"], "Ada")["leak"]
    assert [each.accept for each in found] == [["Ada"], ["Grace"]]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: [", "- What?", "- {question: ''}", "- {question: 3}", "- {question: a, b: c}"],
)
def test_a_file_that_holds_no_questions_is_refused(tmp_path, text):
    (tmp_path / "leak.yaml").write_text(text)
    with pytest.raises(UserError, match=r"leak.yaml is not a list of questions(.|\n)*Fix: write"):
        read_probes(tmp_path, ["leak"], "Ada")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"retention\.yaml is not a list of questions"):
        read_probes(tmp_path, ["retention"], None)


def test_a_question_that_accepts_nothing_is_refused(tmp_path):
    (tmp_path / "retention.yaml").write_text("- question: What?")
    with pytest.raises(UserError, match=r"nothing is accepted as an answer to 'What\?'"):
        read_probes(tmp_path, ["retention"], "Ada")
