"""Greedy answers to many prompts, in batches of bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from snaketune.core.progress import track_progress
from snaketune.models.generation import continuations
from snaketune.scoring.answers import never_stops, repetition

# keys and values of a batch take memory for every token of the prompts and of the answers to come
_MAX_ANSWERS, _MAX_TOKENS = 20, 16_384


@dataclass(frozen=True)
class Generation:
    """A generated answer.

    Attributes:
        repetition: The share of its 4-grams of tokens that occurred before in it.
        stopped: It ended with an end token, before the limit on its length.
    """

    text: str
    repetition: float
    stopped: bool


def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    end_token_ids: list[int],
    label: str,
) -> list[Generation]:
    """Answer every prompt; the result is in the order of the prompts.

    Args:
        prompts: Token ids, as the chat template renders them.
        label: Names the progress line.
    """
    answers: dict[int, Generation] = {}
    with track_progress(label, len(prompts), "answers") as done:
        for batch in _batches(prompts, max_new_tokens):
            batch_prompts = [prompts[index] for index in batch]
            pairs = continuations(model, tokenizer, batch_prompts, max_new_tokens, end_token_ids)
            for index, (_, tokens) in zip(batch, pairs, strict=True):
                answers[index] = _generation(tokenizer, tokens.tolist(), end_token_ids)
            done(len(answers))
    return [answers[index] for index in range(len(prompts))]


def _generation(tokenizer: Any, tokens: list[int], end_token_ids: list[int]) -> Generation:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return Generation(text, repetition(tokens), not never_stops(tokens, end_token_ids))


def _batches(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Iterator[list[int]]:
    """Yield indices of prompts, one batch after the other."""
    # longest first: if memory is insufficient, that shows in the first batch and not in the last
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    while order:
        longest = len(prompts[order[0]]) + max_new_tokens
        size = max(1, min(_MAX_ANSWERS, _MAX_TOKENS // longest))
        yield order[:size]
        order = order[size:]
