"""The file of an agent's questions: every mistake is told with its line."""

import pytest

from snaketune.errors import UserError
from snaketune.experiment.agent_files import question_problems, read_questions


def test_questions_with_a_tool_and_without(tmp_path):
    file = tmp_path / "q.yaml"
    file.write_text(
        "- {question: 1 + 1?, tool: Arithmetic, accept: ['2', two]}\n"
        "- {question: Hello!, tool: null}\n"
    )
    first, second = read_questions(file)
    assert (first.tool, first.accept) == ("Arithmetic", ["2", "two"])
    assert (second.question, second.tool, second.accept) == ("Hello!", None, [])
    assert question_problems(file) == []


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("- {question: A?, tool: null}\n- {question: B?}", 2, "tool"),
        ("- {question: A?, tool: null}\n- {question: '', tool: null}", 2, "question"),
        ("- {question: A?, tool: null, acept: [x]}", 1, "acept"),
        ("- {question: A?, tool: X, accept: [2]}", 1, "accept"),
        ("[]", 1, "questions"),
        ("- {question: A?, tool: null\n", 1, "q.yaml"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, text, line, told):
    file = tmp_path / "q.yaml"
    file.write_text(text)
    [problem, *_] = question_problems(file)
    assert told in str(problem)
    assert problem.place.line >= line
    with pytest.raises(UserError, match="cannot be put"):
        read_questions(file)
