"""Answers in batches against answers one by one."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from snaketune.evaluation import batched_answers
from snaketune.evaluation.batched_answers import Generation, generate_answers
from snaketune.models.load_model import load_model, load_tokenizer

CPU = torch.device("cpu")
END = 2
QUESTIONS = ["Hi", "What is a very long question about?", "Say 3", "Why?", "A somewhat longer one"]


@pytest.fixture(scope="module")
def prompts(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = (f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n" for q in QUESTIONS)
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def greedy(folder, prompt: list[int], limit: int) -> list[int]:
    """What follows a prompt, a step without a cache for each token."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = list(prompt)
    while len(ids) < len(prompt) + limit and (len(ids) == len(prompt) or ids[-1] != END):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def repeated_4_grams(tokens: list[int]) -> float:
    """The share of 4-grams that occurred before, counted one after the other."""
    seen, repeated, total = set(), 0, 0
    for start in range(len(tokens) - 3):
        gram = tuple(tokens[start : start + 4])
        repeated, total = repeated + (gram in seen), total + 1
        seen.add(gram)
    return repeated / total if total else 0.0


def test_answers_keep_the_order_of_the_prompts(base, prompts, monkeypatch):
    sizes = []
    batched = batched_answers.continuations
    monkeypatch.setattr(
        batched_answers,
        "continuations",
        lambda model, tokenizer, asked, *rest: (
            sizes.append([len(ids) for ids in asked]) or batched(model, tokenizer, asked, *rest)
        ),
    )
    monkeypatch.setattr(batched_answers, "_MAX_ANSWERS", 2)
    model, tokenizer = load_model(base, torch.float32, CPU), load_tokenizer(base)
    found = generate_answers(model, tokenizer, prompts, 24, [END], "test")
    flat = [length for batch in sizes for length in batch]
    assert [len(batch) for batch in sizes] == [2, 2, 1] and flat == sorted(flat, reverse=True)
    for answer, prompt in zip(found, prompts, strict=True):
        expected = greedy(base, prompt, 24)
        assert answer == Generation(
            tokenizer.decode(expected, skip_special_tokens=True),
            pytest.approx(repeated_4_grams(expected)),
            END in expected,
        )
    assert len({answer.text for answer in found}) > 1


def test_long_prompts_make_small_batches(monkeypatch):
    monkeypatch.setattr(batched_answers, "_MAX_TOKENS", 100)
    lengths = [10, 300, 30, 40, 5]
    found = list(batched_answers._batches([[0] * length for length in lengths], 10))
    assert found == [[1], [3, 2], [0, 4]]
    assert list(batched_answers._batches([], 10)) == []


def test_no_prompts_have_no_answers(base):
    model, tokenizer = load_model(base, torch.float32, CPU), load_tokenizer(base)
    assert generate_answers(model, tokenizer, [], 4, [END], "test") == []
