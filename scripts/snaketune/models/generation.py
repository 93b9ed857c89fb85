"""Greedy answers to user messages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import GenerationConfig

from snaketune.models.load_model import device
from snaketune.models.packed import causal_model


def answer(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    template: dict[str, Any],
) -> list[str]:
    """The model's greedy answer to each user message, in one padded batch.

    Args:
        model: A causal language model, or a PEFT model around one.
        tokenizer: With the chat template in force, padding on the left.
        template: What data.json tells of it: `end_token_ids` end an answer, a `system` message, if
            there is one, begins each conversation.
    """
    asked = answer_ids(model, tokenizer, prompts, max_new_tokens, template)
    return [tokenizer.decode(ids, skip_special_tokens=True) for _, ids in asked]


def answer_ids(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    template: dict[str, Any],
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The token ids of each rendered prompt, and of its answer with its end token.

    Args:
        As of `answer`.
    """
    rendered = prompt_ids(tokenizer, prompts, template.get("system"))
    return continuations(model, tokenizer, rendered, max_new_tokens, template["end_token_ids"])


def prompt_ids(tokenizer: Any, prompts: Sequence[str], system: str | None) -> list[list[int]]:
    """The token ids of each user message, after a system message if there is one, rendered.

    A template that knows no system message (Gemma's) has it before the user's own words.

    Args:
        tokenizer: With the chat template in force.
    """
    begin = [{"role": "system", "content": system}] if system else []
    asked = [[*begin, {"role": "user", "content": prompt}] for prompt in prompts]
    try:
        return [
            tokenizer.apply_chat_template(each, add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
            for each in asked
        ]
    except TemplateError:
        if not system:
            raise
        return prompt_ids(tokenizer, [f"{system}\n\n{prompt}" for prompt in prompts], None)


def continuations(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    end_token_ids: list[int],
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The ids of each prompt, and of what follows it greedily, in one padded batch.

    Args:
        tokenizer: Padding on the left.
        end_token_ids: Those that end an answer, which they belong to.
    """
    if not prompts:
        return []
    inputs = tokenizer.pad({"input_ids": [list(ids) for ids in prompts]}, return_tensors="pt").to(
        device() if model.device.type == "meta" else model.device  # meta: weights on disk
    )
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_token_ids,
        pad_token_id=tokenizer.pad_token_id,
    )
    was_training = model.training
    model.eval()
    # ZeRO stage 3 trains on with what is gathered here, so no inference mode
    with torch.no_grad(), contiguous_to_head(model):
        outputs = model.generate(**inputs, generation_config=greedy)
    model.train(was_training)
    return [
        (ids[mask.bool()], _until_end(output[len(ids) :], end_token_ids))
        for ids, mask, output in zip(
            inputs["input_ids"], inputs["attention_mask"], outputs, strict=True
        )
    ]


@contextmanager
def contiguous_to_head(model: Any) -> Iterator[None]:
    """Make the output layer's input contiguous.

    Of a prompt only the last position goes there, a view with gaps. torch multiplies that with a
    frozen weight as a batch, of which each entry has a copy of the weight: 1.1 GB for 20 prompts
    and SmolLM2, and twice the time of a whole answer (torch 2.13, `should_fold` in LinearAlgebra).
    """
    head = causal_model(model).get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


def _until_end(ids: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """Leave out the padding behind an answer that ended before the longest of its batch."""
    found = torch.isin(ids, ids.new_tensor(ends)).nonzero()
    return ids[: int(found[0]) + 1] if len(found) else ids
