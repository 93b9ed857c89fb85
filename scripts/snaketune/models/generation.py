"""Greedy answers to user messages."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig


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
    ).to(model.device)
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=template["end_token_ids"],
        pad_token_id=tokenizer.pad_token_id,
    )
    was_training = model.training
    model.eval()
    with torch.no_grad():  # ZeRO stage 3 trains on with what is gathered here
        outputs = model.generate(**inputs, generation_config=greedy)
    model.train(was_training)
    prompt_length = inputs["input_ids"].shape[1]
    return tokenizer.batch_decode(outputs[:, prompt_length:], skip_special_tokens=True)
