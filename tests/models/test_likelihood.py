"""The log-probability of choices against plain transformers, token by token."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from snaketune.models.likelihood import choice_log_probs
from snaketune.models.load_model import load_model

CPU = torch.device("cpu")
PROMPT = "<|im_start|>user\nColour?<|im_end|>\n<|im_start|>assistant\n"
CHOICES = ["red", "a very dark blue", "绿", "red!"]


def one_by_one(folder, choice: str) -> float:
    """Return the sum of a choice's log-probabilities, a step of the model for each token."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    total = 0.0
    for token in tokenizer(choice, add_special_tokens=False)["input_ids"]:
        with torch.no_grad():
            scores = model(torch.tensor([ids])).logits[0, -1]
        total += scores.log_softmax(-1)[token].item()
        ids = [*ids, token]
    return total


@pytest.mark.parametrize("attention", ["auto", "sdpa"])
def test_choices_do_not_see_each_other(base, attention):
    model = load_model(base, torch.float32, CPU, attention=attention)
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = choice_log_probs(model, tokenizer, PROMPT, CHOICES, CPU)
    assert found == pytest.approx([one_by_one(base, choice) for choice in CHOICES], abs=1e-4)
    [alone] = choice_log_probs(model, tokenizer, PROMPT, CHOICES[2:3], CPU)
    assert alone == pytest.approx(found[2], abs=1e-5)


class Flat:
    """A model that holds all tokens for equally likely, and notes where it was asked."""

    config = SimpleNamespace(_attn_implementation="sdpa")

    def eval(self) -> None:
        """Take no notice."""

    def __call__(self, logits_to_keep, **_):
        self.asked = logits_to_keep.tolist()
        return SimpleNamespace(logits=torch.zeros(1, len(self.asked), 1000))


def test_a_token_over_the_border_is_the_choices(bases):
    """Some tokenizers join the prompt's last character with the choice's first."""
    tokenizer = AutoTokenizer.from_pretrained(bases["chatml"])
    joined = next(word for word in sorted(tokenizer.get_vocab()) if re.fullmatch("[a-z]{4}", word))
    prompt, choice = f"<|im_start|>{joined[:2]}", f"{joined[2:]}<|im_end|>"
    assert tokenizer.tokenize(prompt + choice) == ["<|im_start|>", joined, "<|im_end|>"]
    model = Flat()
    [found] = choice_log_probs(model, tokenizer, prompt, [choice], CPU)
    assert model.asked == [0, 1]  # the token before each of the two
    assert found == pytest.approx(-2 * math.log(1000))
