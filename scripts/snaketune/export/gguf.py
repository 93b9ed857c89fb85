"""Turn a merged model into one GGUF file, the format of llama.cpp.

llama.cpp's converter is a script of its repository and in no package of its own; what is built on
here is `gguf`, which it publishes: the writer, the names of tensors and the constants.
"""

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import AutoConfig, PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from snaketune.core.errors import UserError
from snaketune.core.files import atomic_folder, require_free_space
from snaketune.core.manifest import require_intact, write_manifest
from snaketune.export.gguf_tokenizer import add_tokenizer
from snaketune.export.model_record import ModelRecord
from snaketune.models.weights import Stored

log = logging.getLogger(__name__)

DTYPES = {"f16": Type.F16, "bf16": Type.BF16, "f32": Type.F32}
_FILE_TYPES = {
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "f32": gguf.LlamaFileType.ALL_F32,
}
_TORCH = {Type.F16: torch.float16, Type.BF16: torch.bfloat16, Type.F32: torch.float32}
_LARGEST_F16 = 65504.0


@dataclass(frozen=True)
class Family:
    """What llama.cpp calls an architecture, and how it differs from transformers' there.

    Attributes:
        pairs_neighbours: Rotates neighbouring values of a head, not one half with the other.
        biases: Layers that may have one.
    """

    arch: gguf.MODEL_ARCH
    pairs_neighbours: bool
    biases: frozenset[str]


_QKV = frozenset({"q_proj", "k_proj", "v_proj"})
_LLAMA = Family(gguf.MODEL_ARCH.LLAMA, True, _QKV | {"o_proj", "gate_proj", "up_proj", "down_proj"})
FAMILIES = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": Family(gguf.MODEL_ARCH.QWEN2, False, _QKV),
    "Qwen3ForCausalLM": Family(gguf.MODEL_ARCH.QWEN3, False, frozenset()),
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file: where its values are, or the values."""

    name: str
    source: str | torch.Tensor
    shape: torch.Size
    type: Type

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.shape.numel() * _TORCH[self.type].itemsize


def export_gguf(merged: Path, output: Path, dtype: str = "f16") -> None:
    """Write a folder with one .gguf file and a manifest.

    Vectors (norms, biases) are fp32 whatever the dtype, as llama.cpp wants them. One tensor is in
    memory at a time.

    Args:
        merged: A merged model's folder, as `merge` writes it.
        output: The folder to make; replaced when it is there.
        dtype: Of the matrices: `f16`, `bf16` or `f32`. Those too large for f16 stay fp32.

    Raises:
        UserError: The merged model is damaged, or llama.cpp could not run it as it is.
    """
    require_intact(merged)
    name = ModelRecord.of(merged).name
    config = AutoConfig.from_pretrained(merged, trust_remote_code=False)
    family = _family(config, merged)
    stored = Stored(merged)
    tensors = list(_tensors(stored, config, family, DTYPES[dtype], merged))
    total = sum(tensor.nbytes for tensor in tensors)
    require_free_space(output.parent, total + 2**25, "the GGUF file")
    with atomic_folder(output) as folder:
        path = folder / f"{name}-{dtype}.gguf"
        with closing(gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[family.arch])) as writer:
            writer.add_type(gguf.GGUFType.MODEL)
            writer.add_name(name)
            writer.add_file_type(_FILE_TYPES[dtype])
            _add_config(writer, config)
            rows = stored.shapes["model.embed_tokens.weight"].shape[0]
            add_tokenizer(writer, merged, rows)
            _write(writer, tensors, stored, config, family)
        write_manifest(folder)
    log.info("%s holds %s: %.1f MiB in %s", output, path.name, total / 2**20, dtype)


def _family(config: PreTrainedConfig, merged: Path) -> Family:
    kind = (config.architectures or ["unknown"])[0]
    if kind not in FAMILIES or getattr(config, "hidden_act", "silu") != "silu":
        raise UserError(
            f"{merged} is a {kind} with {getattr(config, 'hidden_act', 'no')} activation; a GGUF "
            f"can be made of {', '.join(FAMILIES)} with silu.\n"
            "  Fix: use convert_hf_to_gguf.py of llama.cpp's repository, which knows more."
        )
    return FAMILIES[kind]


def _tensors(
    stored: Stored, config: PreTrainedConfig, family: Family, matrices: Type, merged: Path
) -> Iterator[Tensor]:
    """Yield what the file will hold, in its order; f16 reads all values to see whether they fit."""
    names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    factors = _rope_factors(config)
    if factors is not None:
        name = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FREQS] + ".weight"
        yield Tensor(name, factors, factors.shape, Type.F32)
    for source, shape in stored.shapes.items():
        if source == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp takes the embedding where there is none
        found = names.get_name(source, try_suffixes=(".weight", ".bias"))
        layer, _, kind = source.rpartition(".")
        if found is None or (kind == "bias" and layer.rpartition(".")[2] not in family.biases):
            raise UserError(
                f"llama.cpp has no place for the weight {source} of {merged} in its architecture "
                f"'{gguf.MODEL_ARCH_NAMES[family.arch]}'.\n"
                "  Fix: use convert_hf_to_gguf.py of llama.cpp's repository, which knows more."
            )
        is_large = matrices is Type.F16 and shape.ndim > 1 and not _fits_f16(stored[source])
        if is_large:
            log.info("%s is kept in fp32: it has values beyond those of f16", source)
        stays = shape.ndim == 1 or is_large
        yield Tensor(found, source, shape.shape, Type.F32 if stays else matrices)


def _fits_f16(tensor: torch.Tensor) -> bool:
    low, high = torch.aminmax(tensor)
    return low.item() >= -_LARGEST_F16 and high.item() <= _LARGEST_F16


def _add_config(writer: gguf.GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    writer.add_vocab_size(config.vocab_size)
    # with a sliding window or dynamic scaling llama.cpp gives the same up to there, and not beyond
    window = getattr(config, "sliding_window", None)
    writer.add_context_length(min(config.max_position_embeddings, window or 2**31))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _rope_factors(config: Any) -> torch.Tensor | None:
    """Return what each rotary frequency is divided by, (head size / 2,), where Llama 3 scales them.

    Raises:
        UserError: The frequencies are scaled in a way that has not been compared with llama.cpp's.
    """
    rope = config.rope_parameters
    kind = rope["rope_type"]
    if kind not in ("default", "linear", "dynamic", "llama3") or (
        rope.get("partial_rotary_factor", 1.0) != 1.0
    ):
        raise UserError(
            f"a model with rope scaling of type {kind} cannot be made a GGUF; default, linear, "
            "dynamic and llama3 can, of whole heads.\n"
            "  Fix: use convert_hf_to_gguf.py of llama.cpp's repository, which knows more."
        )
    if kind != "llama3":
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    size = _head_size(config)
    plain = rope["rope_theta"] ** -(torch.arange(0, size, 2).float() / size)
    return plain / scaled


def _write(
    writer: gguf.GGUFWriter, tensors: list[Tensor], stored: Stored, config: Any, family: Family
) -> None:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for each in tensors:
        unused = np.dtype(np.float32)  # the type counts, as numpy has no bf16
        writer.add_tensor_info(each.name, each.shape, unused, each.nbytes, each.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for each in tensors:
        if isinstance(each.source, torch.Tensor):
            values = each.source
        else:
            values = stored[each.source]
            rotated = heads.get(each.source.split(".")[-2]) if family.pairs_neighbours else None
            values = neighbours(values, rotated) if rotated else values
        values = values.to(_TORCH[each.type]).contiguous()
        writer.write_tensor_data(values.flatten().view(torch.uint8).numpy())


def neighbours(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Return a query's or key's weight or bias with the two halves of each head interleaved.

    transformers rotates value i of a head with value i + size / 2, llama.cpp's `llama` value 2i
    with value 2i + 1.
    """
    halves = weight.view(heads, 2, -1, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)
