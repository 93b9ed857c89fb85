"""Greedy answers to many prompts, in batches, and whether a model goes round in circles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from snaketune.core.progress import track_progress
from snaketune.models.generation import continuations
from snaketune.scoring.answers import never_stops, repetition

_MOST_ANSWERS, _MOST_TOKENS = 20, 16_384
"""In a batch, with the tokens to come: what bounds the memory of keys and values."""


@dataclass(frozen=True)
class Told:
    """An answer.

    Attributes:
        repetition: The share of its 4-grams of tokens that it had before.
        stopped: It has an end token, and was not cut at its longest.
    """

    text: str
    repetition: float
    stopped: bool


def tell(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    end_token_ids: list[int],
    label: str,
) -> list[Told]:
    """Return the model's answer to each prompt, in their order.

    Args:
        prompts: Token ids, as the chat template renders them.
        label: What the progress line says.
    """
    told: dict[int, Told] = {}
    with track_progress(label, len(prompts), "answers") as done:
        for batch in _batches(prompts, max_new_tokens):
            asked = [prompts[index] for index in batch]
            pairs = continuations(model, tokenizer, asked, max_new_tokens, end_token_ids)
            for index, (_, answer) in zip(batch, pairs, strict=True):
                told[index] = _told(tokenizer, answer.tolist(), end_token_ids)
            done(len(told))
    return [told[index] for index in range(len(prompts))]


def _told(tokenizer: Any, tokens: list[int], end_token_ids: list[int]) -> Told:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return Told(text, repetition(tokens), not never_stops(tokens, end_token_ids))


def _batches(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Iterator[list[int]]:
    """Yield indices, the longest prompts first: memory that does not do shows at once."""
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    while order:
        longest = len(prompts[order[0]]) + max_new_tokens
        size = max(1, min(_MOST_ANSWERS, _MOST_TOKENS // longest))
        yield order[:size]
        order = order[size:]
