"""The part of a long conversation that is sent, against trying every number of turns."""

import random

import pytest
from tokenizers import Tokenizer

from snaketune.client.context import Context, fit
from snaketune.core.errors import UserError
from snaketune.serving.artifacts import ServedModel

WORDS = ["the", "sea", "is", "deep", "and", "sky", "海", "und", "blau", "42", "!"]


@pytest.fixture
def context(bases):
    return lambda limit, system="": Context(ServedModel("x", "x", limit, system, bases["chatml"]))


def dialogue(seed, turns, system=False):
    """Return a conversation that ends with a prompt."""
    draw = random.Random(seed)

    def text():
        return " ".join(draw.choices(WORDS, k=draw.choice([1, 3, 10, 40])))

    roles = ["system"] * system + ["user", "assistant"] * turns + ["user"]
    return [{"role": role, "content": text()} for role in roles]


def tokens_by_hand(folder, messages):
    """Count the tokens of ChatML written out, with the tokenizer alone."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return len(tokenizer.encode(f"{text}<|im_start|>assistant\n", add_special_tokens=False).ids)


def fit_by_trial(folder, messages, wanted, limit):
    """Return messages and answer's length by dropping one turn after the other."""
    system = [m for m in messages if m["role"] == "system"]
    rest = messages[len(system) :]
    while len(rest) > 1:
        if tokens_by_hand(folder, system + rest) + min(wanted, limit // 4) <= limit:
            break
        rest = rest[2:]
    return system + rest, min(wanted, limit - tokens_by_hand(folder, system + rest))


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("limit", [150, 300, 1000, 5000])
def test_as_few_turns_as_possible_are_left_out(context, bases, limit, system):
    some_left, none_left = False, False
    for seed in range(20):
        messages = dialogue(seed, 2 * seed, system)
        for kept in (messages[0], messages[-1]):
            kept["content"] = kept["content"][:40]
        expected, room = fit_by_trial(bases["chatml"], messages, 64, limit)
        counted = context(limit)
        fitted = fit(messages, 64, limit, counted.count)
        assert (fitted.messages, fitted.max_new_tokens) == (expected, room)
        assert fitted.left_out == (len(messages) - len(expected)) // 2
        some_left, none_left = some_left or fitted.left_out > 0, none_left or fitted.left_out == 0
    assert none_left and (some_left or limit == 5000)


def test_answer_before_the_first_prompt_stays_if_all_fits(context):
    messages = [{"role": "assistant", "content": "the sea"}, *dialogue(1, 1)]
    assert fit(messages, 64, 5000, context(5000).count).messages == messages


def test_own_system_text_counts_if_none_is_sent(context, bases):
    prompt = [{"role": "user", "content": "the sky?"}]
    own = [{"role": "system", "content": "be deep"}]
    taught = context(100, system="be deep")
    assert taught.count(prompt) == tokens_by_hand(bases["chatml"], own + prompt)
    other = [{"role": "system", "content": ""}, *prompt]
    assert taught.count(other) == tokens_by_hand(bases["chatml"], other)


def test_prompt_longer_than_the_context_is_refused(context, bases):
    messages = dialogue(1, 3)
    messages[-1]["content"] = "deep " * 5000
    tokens = tokens_by_hand(bases["chatml"], messages[-1:])
    with pytest.raises(UserError, match=rf"{tokens:,} tokens, .* is 1,000 tokens"):
        fit(messages, 64, 1000, context(1000).count)


@pytest.mark.parametrize("spare", [0, 1, 10])
def test_answer_may_take_the_rest_of_the_context(context, bases, spare):
    messages = dialogue(3, 0)
    tokens = tokens_by_hand(bases["chatml"], messages)
    limit = tokens + spare
    if spare:
        assert fit(messages, 64, limit, context(limit).count).max_new_tokens == spare
    else:
        with pytest.raises(UserError, match="Fix: shorten it"):
            fit(messages, 64, limit, context(limit).count)


def test_template_without_system_role_is_explained(bases, tmp_path):
    for file in bases["chatml"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    refusal = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    template = tmp_path / "chat_template.jinja"
    template.write_text(refusal + template.read_text())
    context = Context(ServedModel("x", "x", 100, "", tmp_path))
    with pytest.raises(UserError, match=r"no system(?s:.)*Fix: "):
        context.count([{"role": "system", "content": "x"}, {"role": "user", "content": "y"}])
