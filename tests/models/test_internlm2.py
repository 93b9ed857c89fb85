"""InternLM2's layout: its packed matrix against one written out head by head."""

import pytest
import torch

from snaketune.models.internlm2 import is_own_layout, to_llama, unpacked

HEADS = [(4, 2, 8), (6, 2, 4), (4, 4, 8), (4, 1, 8)]
"""Query heads, key-value heads, and each one's size."""
HIDDEN = 24
LAYER = "model.layers.0."


def config(heads, groups, size):
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": size,
        "hidden_size": HIDDEN,
    }


def packed(query, key, value, heads, groups, size):
    """Pack as InternLM2 does: for each key its queries, then it, then its value."""
    rows = []
    for group in range(groups):
        for head in range(group * (heads // groups), (group + 1) * (heads // groups)):
            rows += [query[head * size + row] for row in range(size)]
        rows += [key[group * size + row] for row in range(size)]
        rows += [value[group * size + row] for row in range(size)]
    return torch.stack(rows)


@pytest.mark.parametrize(("heads", "groups", "size"), HEADS)
def test_the_packed_rows_come_back(heads, groups, size):
    parts = [torch.randn(count * size, HIDDEN) for count in (heads, groups, groups)]
    whole = packed(*parts, heads, groups, size)
    for found, expected in zip(unpacked(whole, config(heads, groups, size)), parts, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("heads", "groups", "size"), HEADS)
def test_a_divided_update_is_the_update_of_the_divided_weight(heads, groups, size):
    shape = config(heads, groups, size)
    base = torch.randn((heads + 2 * groups) * size, HIDDEN, dtype=torch.float64)
    a = torch.randn(3, HIDDEN, dtype=torch.float64)
    b = torch.randn(len(base), 3, dtype=torch.float64)
    name = LAYER + "attention.wqkv"
    lora = to_llama({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, shape)
    weights = to_llama({f"{name}.weight": base}, shape)
    expected = to_llama({f"{name}.weight": base + b @ a}, shape)
    assert len(weights) == 3
    for each, before in weights.items():
        layer = each.removesuffix(".weight")
        update = lora[f"{layer}.lora_B.weight"] @ lora[f"{layer}.lora_A.weight"]
        assert torch.allclose(before + update, expected[each], atol=1e-12, rtol=0)


def test_other_layers_are_renamed():
    theirs = {
        "model.tok_embeddings.weight": "model.embed_tokens.weight",
        LAYER + "attention.wo.lora_A.weight": LAYER + "self_attn.o_proj.lora_A.weight",
        LAYER + "feed_forward.w1.weight": LAYER + "mlp.gate_proj.weight",
        LAYER + "feed_forward.w2.weight": LAYER + "mlp.down_proj.weight",
        LAYER + "feed_forward.w3.weight": LAYER + "mlp.up_proj.weight",
        LAYER + "attention_norm.weight": LAYER + "input_layernorm.weight",
        LAYER + "ffn_norm.weight": LAYER + "post_attention_layernorm.weight",
        "model.norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    weights = {name: torch.randn(2) for name in theirs}
    found = to_llama(weights, config(4, 2, 8))
    assert list(found) == list(theirs.values())
    assert all(found[new] is weights[old] for old, new in theirs.items())


def test_heads_may_be_told_by_the_hidden_size_alone():
    told = {"num_attention_heads": 3, "hidden_size": HIDDEN}
    rows = torch.randn(9 * 8, HIDDEN)
    assert [len(part) for part in unpacked(rows, told)] == [HIDDEN] * 3


def test_another_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="wqkv has 63 rows, the base's heads need 64"):
        list(unpacked(torch.randn(63, HIDDEN), config(4, 2, 8)))


def test_llamas_own_names_are_not_mistaken():
    assert not is_own_layout({LAYER + "self_attn.q_proj.weight": 0, "lm_head.weight": 0})
    assert is_own_layout({LAYER + "attention.wqkv.lora_A.weight": 0})
