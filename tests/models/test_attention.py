"""Attention within each sample of a pack against eager attention under a block mask."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from snaketune.models.attention import SEGMENTS

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
