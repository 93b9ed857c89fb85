"""InternLM2's weights as its own code names and packs them, turned into Llama's layout.

Its `wqkv` holds, for each key-value head, the rows of that group's query heads, then of its key,
then of its value (arXiv:2403.17297, section 2.3).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

_NAMES = {
    r"\bmodel\.tok_embeddings\b": "model.embed_tokens",
    r"\battention\.wo\b": "self_attn.o_proj",
    r"\bfeed_forward\.w1\b": "mlp.gate_proj",
    r"\bfeed_forward\.w2\b": "mlp.down_proj",
    r"\bfeed_forward\.w3\b": "mlp.up_proj",
    r"\battention_norm\b": "input_layernorm",
    r"\bffn_norm\b": "post_attention_layernorm",
    r"(^|model\.)output\b": r"\1lm_head",
}
_PACKED = "attention.wqkv"
_OWN = re.compile(r"\.(attention\.(wqkv|wo)|feed_forward\.w[123])\.")


def is_own_layout(names: Mapping[str, Any]) -> bool:
    """Tell whether weights are named as in InternLM2's own code."""
    return any(_OWN.search(name) for name in names)


def to_llama(
    weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Return weights, or LoRA's two matrices of each, in Llama's layout.

    LoRA's B (out, r) is divided as the weight's rows are; A (r, in) is the same for all three.

    Args:
        config: The model's config.json, for its numbers of heads.
    """
    found = {}
    for name, tensor in weights.items():
        if _PACKED in name:
            whole = "lora_A" in name
            parts = [tensor.clone() for _ in "qkv"] if whole else unpacked(tensor, config)
            for letter, part in zip("qkv", parts, strict=True):
                found[name.replace(_PACKED, f"self_attn.{letter}_proj")] = part
        else:
            found[_renamed(name)] = tensor
    return found


def unpacked(rows: torch.Tensor, config: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """Yield the queries', keys' and values' rows of a packed tensor.

    Args:
        rows: (key-value heads * (queries per key + 2) * head size, ...).

    Raises:
        ValueError: It has another number of rows.
    """
    heads = config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    size = config.get("head_dim") or config["hidden_size"] // heads
    expected = (heads + 2 * groups) * size
    if len(rows) != expected:
        raise ValueError(f"wqkv has {len(rows)} rows, the base's heads need {expected}")
    grouped = rows.view(groups, heads // groups + 2, size, *rows.shape[1:])
    for part in (slice(None, -2), slice(-2, -1), slice(-1, None)):
        yield grouped[:, part].reshape(-1, *rows.shape[1:])


def _renamed(name: str) -> str:
    for pattern, new in _NAMES.items():
        name = re.sub(pattern, new, name)
    return name
