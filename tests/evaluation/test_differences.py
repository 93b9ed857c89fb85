"""What is marked in an answer."""

import random

import pytest

from snaketune.evaluation.differences import mark_differences


@pytest.mark.parametrize(
    ("before", "after", "marked"),
    [
        ("The sky is blue.", "The sky is blue.", []),
        ("The sky is blue.", "The sky is grey.", ["grey"]),
        ("I am a model", "I am Ada, a model", ["Ada, "]),
        ("one two three", "one three", []),
        ("Canada", "Ada", ["Ada"]),
        ("我是小明。", "我是小红。", ["红"]),
        ("私はモデルです", "私はAdaです", ["Ada"]),
        ("", "all new", ["all new"]),
        ("all gone", "", []),
        ("a\nb", "a\n\nb", ["\n\n"]),
    ],
)
def test_marked_parts(before, after, marked):
    assert [text for text, other in mark_differences(before, after) if other] == marked


def test_parts_join_to_the_answer():
    order = random.Random(0)
    for _ in range(50):
        before, after = (
            "".join(order.choices(["red ", "blue", ", ", "\n", "红", "ない", "é", "7"], k=12))
            for _ in range(2)
        )
        parts = mark_differences(before, after)
        assert "".join(text for text, _ in parts) == after
        place = 0
        for text, other in parts:
            if not other:
                place = before.index(text, place) + len(text)
