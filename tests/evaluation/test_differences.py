"""What is marked in an answer."""

import random

import pytest

from snaketune.evaluation.differences import differing


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
def test_words_and_characters_that_differ(before, after, marked):
    assert [text for text, other in differing(before, after) if other] == marked


def test_the_parts_joined_are_the_answer_and_the_unmarked_ones_were_there():
    order = random.Random(0)
    for _ in range(50):
        before, after = (
            "".join(order.choices(["red ", "blue", ", ", "\n", "红", "ない", "é", "7"], k=12))
            for _ in range(2)
        )
        parts = differing(before, after)
        assert "".join(text for text, _ in parts) == after
        place = 0
        for text, other in parts:
            if not other:
                place = before.index(text, place) + len(text)
