"""Attention within each sample of a packed row, as an implementation transformers can use.

A packed row is several samples one after the other. Masking them apart in one big attention
costs time for pairs that are thrown away; here each sample is attended to on its own (6 times
faster on a CPU for a row of 1024 tokens in 8 samples). Rows without `segment_lengths`, as in
generation, go to torch's scaled dot product attention unchanged.

On a CPU torch's fused kernel is slow in the backward pass. Plain batched products over blocks of
queries are 2.5 to 3.5 times faster in bf16 (samples of 128 to 1024 tokens, 9 heads of 64, forward
and backward), and 1.1 to 1.4 times in fp32; memory grows with the tokens, as with the kernel.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SEGMENTS = "segments"

BLOCK = 128
"""Queries that are scored together; only the keys up to the last of them are looked at."""


def segment_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    segment_lengths: list[int] | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each segment.

    Args:
        query: (1, heads, tokens, head size); key and value may have fewer heads.
        segment_lengths: Tokens of each sample, in order; they add up to `tokens`.
        sliding_window: How far back a token looks; a longer sample takes torch's masked way.

    Returns:
        (1, tokens, heads, head size), and None for the weights.
    """
    if segment_lengths is None or max(segment_lengths) > (sliding_window or max(segment_lengths)):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    attend = _attend if query.device.type == "cpu" else _attend_fused
    scale = scaling or query.shape[-1] ** -0.5
    split = (states.split(segment_lengths, dim=2) for states in (query, key, value))
    attended = [attend(q, k, v, scale) for q, k, v in zip(*split, strict=True)]
    return torch.cat(attended, dim=2).transpose(1, 2).contiguous(), None


def _attend_fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    return scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=True
    )


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    return _CausalAttention.apply(query[0], key[0], value[0], scale)[None]


class _CausalAttention(torch.autograd.Function):
    """Attention of one sample: (heads, tokens, head size), key and value with fewer heads.

    Heads that share a key are scored as more queries of it. The backward pass computes the
    probabilities again, block by block, as keeping them would take memory by tokens squared.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # where autocast is on
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        query = (query * scale).unflatten(0, (len(key), -1))
        result = torch.empty_like(query, memory_format=torch.contiguous_format)
        for start, stop in _blocks(query.shape[2]):
            rows = query[:, :, start:stop]
            attended = torch.bmm(_probabilities(rows, key, stop).flatten(1, 2), value[:, :stop])
            result[:, :, start:stop] = attended.view_as(rows)
        ctx.save_for_backward(query, key, value)
        ctx.scale = scale
        return result.flatten(0, 1)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        gradient = gradient.unflatten(0, (len(key), -1))
        for_query = torch.empty_like(query, memory_format=torch.contiguous_format)
        for_key, for_value = torch.zeros_like(key), torch.zeros_like(value)
        for start, stop in _blocks(query.shape[2]):
            rows, given = (each[:, :, start:stop] for each in (query, gradient))
            flat_rows, flat_given = rows.flatten(1, 2), given.flatten(1, 2)
            chosen = _probabilities(rows, key, stop)
            for_chosen = torch.bmm(flat_given, value[:, :stop].transpose(1, 2)).view_as(chosen)
            for_scores = torch.ops.aten._softmax_backward_data(
                for_chosen, chosen, -1, chosen.dtype
            ).flatten(1, 2)
            for_query[:, :, start:stop] = torch.bmm(for_scores, key[:, :stop]).view_as(rows)
            for_key[:, :stop] += torch.bmm(for_scores.transpose(1, 2), flat_rows)
            for_value[:, :stop] += torch.bmm(chosen.flatten(1, 2).transpose(1, 2), flat_given)
        return for_query.mul_(ctx.scale).flatten(0, 1), for_key, for_value, None


def _blocks(tokens: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, tokens)) for start in range(0, tokens, BLOCK)]


def _probabilities(rows: torch.Tensor, key: torch.Tensor, stop: int) -> torch.Tensor:
    """How much each of some queries takes of each token before `stop`.

    Args:
        rows: (key heads, queries' heads for each, rows, head size), scaled; the last at `stop` - 1.

    Returns:
        (key heads, queries' heads for each, rows, stop).
    """
    count = rows.shape[2]
    scores = torch.bmm(rows.flatten(1, 2), key[:, :stop].transpose(1, 2))
    scores = scores.view(*rows.shape[:3], stop)
    later = torch.ones(count, count, dtype=torch.bool).triu_(1)
    scores[..., stop - count :].masked_fill_(later, -torch.inf)
    return torch.softmax(scores, -1)


AttentionInterface.register(SEGMENTS, segment_attention)
AttentionMaskInterface.register(SEGMENTS, sdpa_mask)
