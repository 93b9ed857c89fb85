"""InternLM and InternLM2 (also 2.5) checkpoints in the layout of Llama, which they compute.

Their repositories bring Python code; none of it is run. InternLM (7B, 20B) is Llama with biases.
InternLM2 (1.8B, 7B, 20B) has other names, and packs the attention's inputs into one matrix `wqkv`,
by groups: for each key-value head its query heads, then the key, then the value.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig, LlamaForCausalLM

from snaketune.bases.pickles import SHARD, Pickled
from snaketune.core.errors import UserError
from snaketune.core.files import require_free_space
from snaketune.models.weights import Stored, write_weights

log = logging.getLogger(__name__)

KINDS = ("internlm", "internlm2")
"""What their config.json has as `model_type`."""

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
_SAME = (
    *_REQUIRED,
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
)
"""What Llama calls by the same name."""

_INTERNLM2_NAMES = {
    "embed_tokens": "tok_embeddings",
    "lm_head": "output",
    "self_attn.q_proj": "attention.wqkv",
    "self_attn.k_proj": "attention.wqkv",
    "self_attn.v_proj": "attention.wqkv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attention_norm",
}
_WRONG_VALUE = (TypeError, ValueError, AttributeError, ZeroDivisionError)


def llama_config(config: Mapping[str, Any], source: str) -> LlamaConfig:
    """Return the Llama configuration that computes what an InternLM or InternLM2 one does.

    Args:
        config: config.json, with a `model_type` of KINDS.
        source: For messages.

    Raises:
        UserError: It lacks a size, its sizes do not fit, a value is of the wrong type, or the type
            of its rotary embedding is neither the original, `linear` nor `dynamic`.
    """
    try:
        return _llama_config(config, source)
    except (*_WRONG_VALUE, StrictDataclassError) as error:
        told = " ".join(f"{error}".split())
        raise UserError(
            f"config.json of {source} holds a value that cannot be: {told}.\n"
            "  Fix: name a repository with the model's original config.json."
        ) from error


def _llama_config(config: Mapping[str, Any], source: str) -> LlamaConfig:
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise UserError(
            f"config.json of {source} lacks {', '.join(missing)}.\n"
            "  Fix: name a repository with the model's original config.json."
        )
    heads, groups = config["num_attention_heads"], config.get("num_key_value_heads")
    if config["hidden_size"] % heads or heads % (groups or heads):
        raise UserError(
            f"config.json of {source} has hidden_size {config['hidden_size']}, {heads} attention "
            f"heads and {groups or heads} key-value heads: each must be a multiple of the next.\n"
            "  Fix: name a repository with the model's original config.json."
        )
    return LlamaConfig(
        **{key: config[key] for key in _SAME if config.get(key) is not None},
        attention_bias=config.get("bias", True),  # as both of their own configurations default
        rope_parameters=_rope(config, source),
        architectures=["LlamaForCausalLM"],
    )


def _rope(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the rotary embedding as transformers names its parts.

    InternLM has `rotary: {base, type, scaling_factor}`, and `dynamic` where nothing is said.
    InternLM2 has `rope_theta` and `rope_scaling: {type, factor}`, as Llama had them.
    """
    if config["model_type"] == "internlm":
        scaling = {"type": "dynamic"} | (config.get("rotary") or {})
        theta, factor = scaling.get("base", 10000), scaling.get("scaling_factor", 1.0)
    else:
        scaling = config.get("rope_scaling") or {"type": "default"}
        theta, factor = config.get("rope_theta", 10000), scaling.get("factor", 1.0)
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("origin", "default"):
        return {"rope_type": "default", "rope_theta": float(theta)}
    if kind not in ("linear", "dynamic"):
        raise UserError(
            f"the rotary embedding of {source} is of type '{kind}'; InternLM knows 'dynamic' and "
            "'linear'.\n"
            "  Fix: name a repository with the model's original config.json."
        )
    return {"rope_type": kind, "rope_theta": float(theta), "factor": float(factor)}


def convert_weights(
    files: Sequence[Path], config: Mapping[str, Any], folder: Path, source: str
) -> None:
    """Write an InternLM checkpoint's weights as Llama's, holding one tensor in memory.

    Args:
        files: All its `.safetensors` or `.bin` files, in one folder.
        config: Its own config.json.
        folder: Where to write config.json and safetensors; not atomic in itself.
        source: For messages.

    Raises:
        UserError: A tensor is missing, unknown, or not of the shape that config.json says; a file
            is damaged; the disk is too small. Nothing is written.
    """
    llama = llama_config(config, source)
    stored = Pickled(files) if files[0].suffix == ".bin" else Stored(files[0].parent)
    with torch.device("meta"):
        wanted = LlamaForCausalLM(llama).state_dict()
    if llama.tie_word_embeddings:
        del wanted["lm_head.weight"]
    origins = {name: _origin(name, config["model_type"]) for name in wanted}
    _require_names(set(stored), set(origins.values()), llama.tie_word_embeddings, source)
    shapes = {}
    for name, origin in origins.items():
        found = stored.shapes[origin]
        _require_shape(origin, found, _origin_shape(wanted[name], origin, llama), source)
        shapes[name] = torch.empty_like(wanted[name], dtype=found.dtype)
    total = sum(shape.nbytes for shape in shapes.values())
    require_free_space(folder, total, "the weights in Llama's layout")
    log.info("converting %s to Llama's layout: %.1f MiB of weights", source, total / 2**20)

    def blocks(name: str) -> list[torch.Tensor]:
        tensor = stored[origins[name]]
        return [_unpacked(tensor, name, llama) if _is_packed(origins[name]) else tensor]

    write_weights(folder, shapes, blocks, SHARD)
    llama.dtype = shapes["model.embed_tokens.weight"].dtype
    llama.save_pretrained(folder)


def has_internlm2_names(names: Iterable[str]) -> bool:
    """Tell whether some weights are named as in InternLM2's own code."""
    return any(re.search(r"\.(attention\.w|feed_forward\.w[123]\.)", name) for name in names)


def from_internlm2(
    weights: Mapping[str, torch.Tensor], config: LlamaConfig
) -> dict[str, torch.Tensor]:
    """Return some weights of InternLM2, or LoRA's of them, in Llama's layout.

    LoRA's B (out, r) is divided as the rows of its weight are; A (r, in) is that of all parts.

    Args:
        config: The converted model's.

    Raises:
        ValueError: A packed tensor has not the rows of the model's heads.
    """
    groups, queries, head_dim = _heads(config)
    found = {}
    for origin, tensor in weights.items():
        is_packed = _is_packed(origin) and ".lora_A." not in origin
        rows = groups * (queries + 2) * head_dim
        if is_packed and len(tensor) != rows:
            raise ValueError(f"{origin} has {len(tensor)} rows, the base's heads need {rows}")
        for name in _names(origin):
            found[name] = _unpacked(tensor, name, config) if is_packed else tensor
    return found


def _names(origin: str) -> list[str]:
    """Return Llama's names of a tensor of InternLM2, one or three."""
    pairs = ((f"{ours}.", f"{theirs}.") for ours, theirs in _INTERNLM2_NAMES.items())
    return [origin.replace(theirs, ours) for ours, theirs in pairs if theirs in origin] or [origin]


def _origin(name: str, kind: str) -> str:
    """Return the name of the tensor that one of Llama's is, or is a part of."""
    if kind == "internlm2":
        for ours, theirs in _INTERNLM2_NAMES.items():
            name = name.replace(f"{ours}.", f"{theirs}.")
    return name


def _is_packed(origin: str) -> bool:
    return ".wqkv." in origin


def _origin_shape(wanted: torch.Tensor, origin: str, config: LlamaConfig) -> torch.Size:
    if not _is_packed(origin):
        return wanted.shape
    groups, queries, head_dim = _heads(config)
    return torch.Size((groups * (queries + 2) * head_dim, *wanted.shape[1:]))


def _heads(config: Any) -> tuple[int, int, int]:
    """Return the key-value heads, the query heads of each, and the size of a head."""
    groups = config.num_key_value_heads
    return groups, config.num_attention_heads // groups, config.head_dim


def _unpacked(wqkv: torch.Tensor, name: str, config: LlamaConfig) -> torch.Tensor:
    """Cut the queries, keys or values out of `wqkv`.

    Args:
        wqkv: Weight or bias, [key-value heads x (query heads of each + 2) x head_dim, ...].
        name: What Llama calls the part, such as `model.layers.0.self_attn.q_proj.weight`.

    Returns:
        [heads x head_dim, ...] in the order of Llama's heads.
    """
    groups, queries, head_dim = _heads(config)
    packed = wqkv.unflatten(0, (groups, queries + 2, head_dim))
    if ".q_proj." in name:
        return packed[:, :queries].flatten(0, 2)
    return packed[:, queries if ".k_proj." in name else queries + 1].flatten(0, 1)


def _require_names(found: set[str], wanted: set[str], tied: bool, source: str) -> None:
    """Refuse a checkpoint with other tensors; old ones also store what they can compute."""
    heads = {"lm_head.weight", "output.weight"} if tied else set()
    missing = sorted(wanted - found)
    unknown = sorted(n for n in found - wanted - heads if not n.endswith("rotary_emb.inv_freq"))
    told = [("lacks", missing), ("has also", unknown)]
    parts = [f"{verb} {len(names)}, such as {names[0]}" for verb, names in told if names]
    if parts:
        raise UserError(
            f"the tensors of {source} are not those its config.json describes: it "
            f"{'; it '.join(parts)}.\n"
            "  Fix: complete that folder, or name the causal language model it was made from."
        )


def _require_shape(name: str, found: torch.Tensor, wanted: torch.Size, source: str) -> None:
    if found.shape != wanted:
        raise UserError(
            f"{name} of {source} has the shape {list(found.shape)}; by config.json it is "
            f"{list(wanted)}.\n"
            "  Fix: name a repository whose config.json belongs to its weights."
        )
