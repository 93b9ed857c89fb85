"""Batched, cached, padded answers against a greedy loop written out."""

import pytest
import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM

from snaketune.experiment.schema import Method
from snaketune.models.generation import answer, prompt_ids
from snaketune.models.load_model import load_model, load_tokenizer
from snaketune.models.trainable import make_trainable

PROMPTS = ["Say 3", "A much longer question, so that the others are padded: what is it?", "?"]
END = 2
UNTIL = {"end_token_ids": [END], "system": ""}


@pytest.fixture(scope="module")
def model(base):
    return load_model(base, torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base)


def greedy(base, tokenizer, prompt, new_tokens, before="") -> list[int]:
    """Return the tokens of one answer: no batch, no padding, no cache."""
    plain = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager").eval()
    text = f"{before}<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    start = ids.shape[1]
    for _ in range(new_tokens):
        with torch.no_grad():
            ids = torch.cat([ids, plain(ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, start:].tolist()


def test_a_batch_answers_as_a_greedy_loop_does_one_by_one(base, model, tokenizer):
    found = answer(model, tokenizer, PROMPTS, 12, UNTIL)
    expected = [greedy(base, tokenizer, prompt, 12) for prompt in PROMPTS]
    assert not any(END in tokens for tokens in expected)
    assert found == [tokenizer.decode(tokens) for tokens in expected]
    assert len(set(found)) > 1


def test_an_answer_ends_at_its_end_token_and_the_others_go_on(base, model, tokenizer):
    whole = [greedy(base, tokenizer, prompt, 12) for prompt in PROMPTS]
    end = whole[0][4]
    cut = [tokens[: tokens.index(end) + 1] if end in tokens else tokens for tokens in whole]
    assert len({len(tokens) for tokens in cut}) > 1
    found = answer(model, tokenizer, PROMPTS, 12, {"end_token_ids": [END, end]})
    assert found == [tokenizer.decode(tokens) for tokens in cut]


def test_a_system_message_begins_every_conversation(base, model, tokenizer):
    found = answer(model, tokenizer, PROMPTS, 12, UNTIL | {"system": "Be brief."})
    before = "<|im_start|>system\nBe brief.<|im_end|>\n"
    expected = [greedy(base, tokenizer, prompt, 12, before) for prompt in PROMPTS]
    assert found == [tokenizer.decode(tokens) for tokens in expected]
    assert found != answer(model, tokenizer, PROMPTS, 12, UNTIL)


def test_no_prompts_are_no_answers(model, tokenizer):
    assert answer(model, tokenizer, [], 12, UNTIL) == []


@pytest.mark.parametrize("training", [True, False])
def test_leaves_training_mode_and_random_state_as_they_were(base, tokenizer, training):
    network = load_model(base, torch.float32, torch.device("cpu"))
    adapted = make_trainable(network, Method(name="lora", r=4, dropout=0.5), seed=0).train(training)
    before = torch.get_rng_state()
    told = answer(adapted, tokenizer, PROMPTS, 4, UNTIL)
    assert told == answer(adapted, tokenizer, PROMPTS, 4, UNTIL)
    assert torch.equal(torch.get_rng_state(), before)
    assert {module.training for module in adapted.modules()} == {training}


def test_leaves_the_gradient_flowing(base, tokenizer):
    network = load_model(base, torch.float32, torch.device("cpu"))
    adapted = make_trainable(network, Method(name="lora", r=4, dropout=0.0), seed=0)
    answer(adapted, tokenizer, PROMPTS, 4, UNTIL)
    adapted(torch.arange(9)[None], labels=torch.arange(9)[None]).loss.backward()
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)


def test_head_input_is_contiguous(base, tokenizer, monkeypatch):
    model = load_model(base, torch.float32, torch.device("cpu")).requires_grad_(False)
    seen = []
    head, plain = model.get_output_embeddings(), torch.nn.Linear.forward

    def forward(layer, x):
        if layer is head:
            seen.append(x.is_contiguous())
        return plain(layer, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    answer(model, tokenizer, PROMPTS, 3, UNTIL)
    assert seen == [True] * 3
    assert not head._forward_pre_hooks


def test_system_message_moves_into_the_prompt(base):
    tokenizer = load_tokenizer(base)
    refused = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    plain = prompt_ids(tokenizer, ["Be brief.\n\nSay 3"], None)
    tokenizer.chat_template = refused + tokenizer.chat_template
    assert prompt_ids(tokenizer, ["Say 3"], "Be brief.") == plain


def test_refusing_template_raises_its_error(base):
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = "{{ raise_exception('nothing') }}"
    with pytest.raises(TemplateError, match="nothing"):
        prompt_ids(tokenizer, ["Say 3"], "Be brief.")
