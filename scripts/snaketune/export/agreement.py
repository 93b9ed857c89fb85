"""How far two models are apart: logits and greedy tokens over conversations, the held-out loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from snaketune.data.storage import Packs
from snaketune.models.generation import answer_ids
from snaketune.models.packed import flatten, loss_sum

MOST_PROMPTS, MOST_TOKENS = 8, 32
"""So many prompts are compared, at so many tokens of each answer and of the prompt before it:
logits are large, and prompts may be long."""

PROBES = (
    "The capital of Italy is Rome, and the capital of Japan is",
    "Please introduce yourself.",
    "1 + 1 = 2, 2 + 2 = 4, 4 + 4 =",
    "你好，请介绍一下你自己。",
)
"""Asked where an experiment has no prompts of its own."""


@dataclass(frozen=True)
class Conversations:
    """Prompts and one model's greedy answers, one after the other in a single row.

    Attributes:
        input_ids: (tokens,) int64.
        lengths: Tokens of each conversation.
        compared: (compared,) int64, the positions whose logits are compared.
        answered: (compared,) bool, those whose next token is an answer's.
    """

    input_ids: torch.Tensor
    lengths: list[int]
    compared: torch.Tensor
    answered: torch.Tensor


def converse(
    model: Any, tokenizer: Any, prompts: Sequence[str], template: dict[str, Any]
) -> Conversations:
    """Return what a model answers to some prompts, or to PROBES where there are none."""
    asked = (prompts or PROBES)[:MOST_PROMPTS]
    pairs = answer_ids(model, tokenizer, asked, MOST_TOKENS, template)
    lengths, compared, answered, begin = [], [], [], 0
    for prompt, answer in pairs:
        first = begin + len(prompt) - 1
        positions = torch.arange(max(begin, first - MOST_TOKENS), first + len(answer))
        compared.append(positions)
        answered.append(positions >= first)
        lengths.append(len(prompt) + len(answer))
        begin += lengths[-1]
    row = torch.cat([ids for pair in pairs for ids in pair])
    return Conversations(row, lengths, torch.cat(compared), torch.cat(answered))


def logits(model: Any, conversations: Conversations) -> torch.Tensor:
    """Return logits at the compared positions: (compared, vocabulary), fp32, on the CPU.

    Each position's have the mean 0: what is added to all of them changes no probability.

    Args:
        model: With our own attention, which keeps the conversations apart.
    """
    positions = torch.cat([torch.arange(length) for length in conversations.lengths])
    where = conversations.input_ids.device
    with torch.inference_mode():
        found = model(
            input_ids=conversations.input_ids[None],
            position_ids=positions[None].to(where),
            segment_lengths=conversations.lengths,
            logits_to_keep=conversations.compared.to(where),
            use_cache=False,
        ).logits[0]
    found = found.float().cpu()
    return found - found.mean(1, keepdim=True)


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the root mean square difference of logits as a share of their deviation."""
    return ((found - expected).pow(2).mean().sqrt() / expected.std()).item()


def equal_tokens(found: torch.Tensor, conversations: Conversations) -> float:
    """Return the share of the answers' tokens that `logits` choose greedily too."""
    positions = conversations.compared[conversations.answered]
    tokens = conversations.input_ids.cpu()[positions + 1]
    return (found[conversations.answered].argmax(-1) == tokens).float().mean().item()


def heldout_loss(
    model: Any, packs: Packs, where: torch.device, most_tokens: float = math.inf
) -> dict[str, Any]:
    """Return the mean loss over the supervised tokens of some packs, and its perplexity.

    Values are None where there are no held-out rows.

    Args:
        most_tokens: Stop after the pack that reaches so many tokens.
    """
    total, weight, tokens, read = 0.0, 0.0, 0, 0
    model.eval()
    with torch.inference_mode():
        for pack in packs:
            batch = flatten([pack]).to(where)
            total += loss_sum(model, batch).item()
            weight += batch.loss_weight()
            tokens += len(batch.targets)
            read += batch.input_ids.numel()
            if read >= most_tokens:
                break
    return loss_figures(total, weight, tokens)


def loss_figures(total: float, weight: float, tokens: int) -> dict[str, Any]:
    """Return the mean loss and its perplexity of tokens whose losses are summed; None of none.

    Args:
        total: The sum of the tokens' weighted losses.
        weight: The sum of their weights.
    """
    loss = total / weight if weight else None
    perplexity = math.exp(loss) if loss is not None else None
    return {"loss": loss, "perplexity": perplexity, "supervised_tokens": tokens}
