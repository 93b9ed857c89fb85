"""Load a base model for training or use, in the precision the hardware is good at."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import is_flash_attn_2_available
from transformers.utils.logging import disable_progress_bar

from snaketune.core.errors import UserError
from snaketune.core.machine import cpu_bf16
from snaketune.models.attention import SEGMENTS

if not sys.stderr.isatty():
    disable_progress_bar()  # in a log it is one endless line


def choose_precision(requested: str) -> tuple[torch.dtype, str]:
    """The dtype of base weights and arithmetic, and the reason in words.

    Args:
        requested: `bf16`, `fp32`, or `auto` for bf16 where the hardware multiplies it fast.
    """
    if requested != "auto":
        return {"bf16": torch.bfloat16, "fp32": torch.float32}[requested], "as train.precision says"
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU has bf16"
        return torch.float32, "the GPU has no bf16"
    if found := cpu_bf16():
        return torch.bfloat16, f"the CPU has {found}"
    return torch.float32, "the CPU has no bf16 instructions"


@contextmanager
def explain_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn an allocation that failed into a UserError that names what to change.

    Args:
        remedy: What needs less memory.

    Raises:
        UserError: The GPU or the machine has too little memory.
    """
    try:
        yield
    except RuntimeError as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not on_gpu and "can't allocate memory" not in str(error):
            raise
        told = str(error).splitlines()[0]
        raise UserError(f"out of memory: {told}\n  Fix: {remedy}") from error


def device(local_rank: int = 0) -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def available_memory(where: torch.device, shared_by: int = 1) -> int:
    """The bytes that this process can have at most, with what it holds already.

    Args:
        shared_by: How many processes like this one share a machine's memory.
    """
    if where.type == "cuda":
        free, _ = torch.cuda.mem_get_info(where)
        return free + torch.cuda.memory_reserved(where)
    own = psutil.Process().memory_info().rss
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    free = psutil.virtual_memory().available
    return min(free, int(text) - own if text.isdigit() else free) // shared_by + own


def load_model(
    folder: Path,
    dtype: torch.dtype,
    where: torch.device,
    quantization: str | None = None,
    attention: str = "auto",
) -> PreTrainedModel:
    """Load a causal language model from a folder of safetensors.

    Args:
        dtype: Of the weights; with `quantization`, of the arithmetic.
        quantization: How the linear layers are held (QLoRA): `nf4` or `fp4` with quantised
            constants, or `int8`; None for as they are.
        attention: `auto`, or what transformers calls an implementation.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        device_map={"": where},
        attn_implementation=attention_implementation(where, dtype, attention),
        quantization_config=quantization and bitsandbytes_config(quantization, dtype),
        trust_remote_code=False,
        use_safetensors=True,
    )
    _keep_differentiable(model)
    return model


def _keep_differentiable(model: Any) -> None:
    """Stop bitsandbytes from packing 4-bit layers for inference when a CPU model first answers.

    No gradient flows through that form, and training would go on without a word (0.50).
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def bitsandbytes_config(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How bitsandbytes is to hold the linear layers: `nf4`, `fp4` or `int8`."""
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def attention_implementation(
    where: torch.device, dtype: torch.dtype, requested: str = "auto"
) -> str:
    """What is asked for; `auto` is FlashAttention on a GPU that has it, else our own."""
    if requested != "auto":
        return requested
    if where.type == "cuda" and dtype != torch.float32 and is_flash_attn_2_available():
        return "flash_attention_2"
    return SEGMENTS


def load_tokenizer(folder: Path, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer, padding on the left for generation, with another chat template if given."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, padding_side="left")
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
