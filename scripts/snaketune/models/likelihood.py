"""How likely texts are as answers: the log-probability of their tokens after a prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from snaketune.data.storage import Pack
from snaketune.data.template import IGNORE
from snaketune.models.packed import flatten, model_inputs


def choice_log_probs(
    model: Any, tokenizer: Any, prompt: str, choices: Sequence[str], where: torch.device
) -> list[float]:
    """The summed log-probability (natural, fp32) of each choice's tokens after a prompt.

    No end token is counted, as in lm-evaluation-harness. Prompt and choice are tokenised as one
    text; what is a choice's are the tokens with characters of it.

    Args:
        tokenizer: A fast one, which tells the characters of a token.
        prompt: As the chat template renders it.
    """
    packs = [_pack(tokenizer, prompt, choice) for choice in choices]
    batch = flatten(packs).to(where)
    model.eval()
    with torch.inference_mode():
        found = model(**model_inputs(model, batch), logits_to_keep=batch.predicts).logits[0]
        log_probs = -cross_entropy(found.float(), batch.targets, reduction="none")
    counts = [int((pack.labels != IGNORE).sum()) for pack in packs]
    return [part.sum().item() for part in log_probs.split(counts)]


def _pack(tokenizer: Any, prompt: str, choice: str) -> Pack:
    encoded = tokenizer(prompt + choice, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.array(encoded["input_ids"], np.int32)
    ends = np.array([end for _, end in encoded["offset_mapping"]])
    labels = np.where(ends > len(prompt), ids, IGNORE).astype(np.int32)
    return Pack(ids, labels, np.array([len(ids)], np.int32))
