"""Greedy answers to user messages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from snaketune.models.load import device
from snaketune.models.packed import causal_model


def answer(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    template: dict[str, Any],
) -> list[str]:
    """Return the model's greedy answer to each user message, in one padded batch.

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
    """Return the token ids of each rendered prompt, and of its answer with its end token.

    Args:
        As of `answer`.
    """
    if not prompts:
        return []
    system = template.get("system")
    begin = [{"role": "system", "content": system}] if system else []
    inputs = tokenizer.apply_chat_template(
        [[*begin, {"role": "user", "content": prompt}] for prompt in prompts],
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
        return_dict=True,
    ).to(device() if model.device.type == "meta" else model.device)  # meta: weights on disk
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=template["end_token_ids"],
        pad_token_id=tokenizer.pad_token_id,
    )
    was_training = model.training
    model.eval()
    # ZeRO stage 3 trains on with what is gathered here, so no inference mode
    with torch.no_grad(), _contiguous_to_head(model):
        outputs = model.generate(**inputs, generation_config=greedy)
    model.train(was_training)
    return [
        (ids[mask.bool()], _until_end(output[len(ids) :], template["end_token_ids"]))
        for ids, mask, output in zip(
            inputs["input_ids"], inputs["attention_mask"], outputs, strict=True
        )
    ]


@contextmanager
def _contiguous_to_head(model: Any) -> Iterator[None]:
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
