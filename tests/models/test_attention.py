"""Attention within each sample of a pack against eager attention under a block mask."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from snaketune.models.attention import BLOCK, SEGMENTS, segment_attention

LENGTHS = [5, 1, 17, 8]
TOKENS = sum(LENGTHS)


def model(attention: str, kv_heads: int = 2):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        initializer_range=0.2,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).eval()


def row(seed: int = 1):
    ids = torch.randint(99, (1, TOKENS), generator=torch.Generator().manual_seed(seed))
    return ids, torch.cat([torch.arange(length) for length in LENGTHS])[None]


def packed(model, ids, positions):
    return model(ids, position_ids=positions, segment_lengths=LENGTHS, use_cache=False).logits


def block_mask() -> torch.Tensor:
    """Return what is added to the scores: 0 for the earlier tokens of the same sample."""
    sample = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    seen = (sample[:, None] == sample[None]) & torch.ones(TOKENS, TOKENS).tril().bool()
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_equals_eager_attention_under_a_block_mask(kv_heads):
    ids, positions = row()
    with torch.no_grad():
        found = packed(model(SEGMENTS, kv_heads), ids, positions)
        eager = model("eager", kv_heads)
        expected = eager(ids, position_ids=positions, attention_mask=block_mask()).logits
        unmasked = eager(ids, position_ids=positions).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (unmasked - expected).abs().max() > 1e-2


@pytest.mark.parametrize("changed", range(len(LENGTHS)))
def test_changing_a_sample_changes_no_other(changed):
    ids, positions = row()
    other, _ = row(seed=2)
    start, end = sum(LENGTHS[:changed]), sum(LENGTHS[: changed + 1])
    mixed = ids.clone()
    mixed[:, start:end] = other[:, start:end]
    network = model(SEGMENTS)
    with torch.no_grad():
        same = (packed(network, ids, positions) == packed(network, mixed, positions)).all(-1)[0]
    assert same[:start].all() and same[end:].all()
    assert not same[start:end].any()


def slow_attention(query, key, value):
    """Attend causally, one head after the other, in float64."""
    heads = []
    for head in range(len(query)):
        shared = head * len(key) // len(query)
        q, k, v = (t.double() for t in (query[head], key[shared], value[shared]))
        scores = (q @ k.T / q.shape[1] ** 0.5).masked_fill(
            torch.ones(len(q), len(q)).triu(1).bool(), -torch.inf
        )
        heads.append(scores.softmax(-1) @ v)
    return torch.stack(heads)


@pytest.mark.parametrize("tokens", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_values_and_gradients_equal_a_slow_attention(tokens, kv_heads, dtype, bound):
    torch.manual_seed(tokens)
    shapes = [(4, tokens, 16), (kv_heads, tokens, 16), (kv_heads, tokens, 16)]
    given = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]
    upstream = torch.randn(shapes[0]).to(dtype)
    batch = [tensor[None] for tensor in given]
    found, _ = segment_attention(None, *batch, None, segment_lengths=[tokens])
    found = found[0].transpose(0, 1)
    expected = slow_attention(*given)
    gradients = torch.autograd.grad(found, given, upstream)
    others = torch.autograd.grad(expected, given, upstream.double())
    for one, other in zip((found, *gradients), (expected, *others), strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).norm() <= bound * other.norm() + 1e-6


def test_a_sample_longer_than_a_sliding_window_is_masked():
    ids, positions = row()
    networks = [windowed(attention) for attention in (SEGMENTS, "eager")]
    with torch.no_grad():
        found = packed(networks[0], ids, positions)
        expected = networks[1](ids, position_ids=positions, use_cache=False).logits
        unlimited = packed(windowed(SEGMENTS, window=99), ids, positions)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (unlimited - expected).abs().max() > 1e-3


def windowed(attention: str, window: int = 4):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    config = MistralConfig(
        vocab_size=99, sliding_window=window, attn_implementation=attention, **sizes, **heads
    )
    return MistralForCausalLM(config).eval()


def test_a_padded_batch_goes_to_plain_sdpa():
    ids = row()[0].view(1, -1).repeat(2, 1)
    mask = torch.ones_like(ids)
    mask[1, :9] = 0
    with torch.no_grad():
        found = model(SEGMENTS)(ids, attention_mask=mask).logits
        expected = model("sdpa")(ids, attention_mask=mask).logits
    assert torch.equal(found, expected)


def test_generation_goes_to_plain_sdpa():
    ids, _ = row()
    answers = [
        model(attention).generate(
            ids,
            max_new_tokens=9,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for attention in (SEGMENTS, "sdpa")
    ]
    assert torch.equal(answers[0].sequences, answers[1].sequences)
    assert all(map(torch.equal, answers[0].logits, answers[1].logits))
