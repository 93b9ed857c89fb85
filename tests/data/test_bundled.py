"""The data sets in the repository: what the documentation promises of them."""

import re

import pytest

from snaketune.data.conversation import trim
from snaketune.data.formats import FORMATS
from snaketune.rows.reading import read_rows


@pytest.fixture
def conversations(repository):
    def conversations(name, kind):
        path = repository / "experiments/data" / f"{name}.jsonl"
        found = [each for row in read_rows(path) for each in FORMATS[kind].parse(row.value)]
        assert [trim(each) for each in found] == found
        return [each.messages for each in found]

    return conversations


def test_there_are_enough_general_conversations(conversations):
    assert len(conversations("general", "oasst1")) >= 150


def test_no_general_question_is_asked_twice(conversations):
    asked = [conversation[0]["content"] for conversation in conversations("general", "oasst1")]
    assert len(asked) == len(set(asked))


def test_there_are_enough_questions_about_the_assistant(repository):
    rows = list(read_rows(repository / "experiments/data/assistant.jsonl"))
    assert len({row.value["question"] for row in rows}) == len(rows) >= 40


def test_every_answer_about_the_assistant_has_its_name(conversations):
    answers = [
        conversation[1]["content"] for conversation in conversations("assistant", "assistant")
    ]
    assert [answer for answer in answers if "{{name}}" not in answer] == []


def test_the_assistants_rows_need_a_name_and_an_author_alone(repository):
    text = (repository / "experiments/data/assistant.jsonl").read_text(encoding="utf-8")
    assert set(re.findall(r"\{\{(.*?)\}\}", text)) == {"name", "author"}


def test_the_capital_of_france_is_in_no_general_row(repository):
    """It is what the reports ask to see whether training spoiled anything unrelated."""
    rows = read_rows(repository / "experiments/data/general.jsonl")
    named = re.compile(r"paris|巴黎|capital\w* (of|de|da) (la )?fran|法国的?首都", re.IGNORECASE)
    assert [row.place for row in rows if named.search(row.value["text"])] == []


@pytest.mark.parametrize(("name", "kind"), [("general", "oasst1"), ("assistant", "assistant")])
def test_every_line_is_one_row(repository, name, kind):
    path = repository / "experiments/data" / f"{name}.jsonl"
    rows = list(read_rows(path))
    assert len(rows) == path.read_bytes().count(b"\n")
    assert all(FORMATS[kind].parse(row.value) for row in rows)
