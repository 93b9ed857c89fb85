"""The weights that a QLoRA run has seen: rounded to 4 or 8 bits, and back."""

from collections.abc import Callable
from functools import partial

import bitsandbytes.functional as bnb
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers.quantizers import AutoHfQuantizer

from snaketune.models.load_model import bitsandbytes_config


def quantized_layers(model: torch.nn.Module, quantization: str) -> list[str]:
    """Return the names of the weights that transformers hands to bitsandbytes.

    Args:
        model: Without weights, on the device `meta`; its linear layers are replaced.
        quantization: `nf4`, `fp4` or `int8`.
    """
    config = bitsandbytes_config(quantization, torch.float32)
    quantizer = AutoHfQuantizer.from_config(config)
    quantizer.preprocess_model(model, device_map={"": "cpu"}, dtype=torch.float32)
    return [
        f"{name}.weight"
        for name, layer in model.named_modules()
        if isinstance(layer, Linear4bit | Linear8bitLt)
    ]


def rounding(quantization: str, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that rounds a weight as bitsandbytes holds it while training.

    Args:
        quantization: `nf4` or `fp4` with quantised constants, or `int8` (its weights alone: it
            rounds activations too, which a merged model does not).
        dtype: The training's arithmetic, which weights are cast to before.
    """
    return partial(_int8 if quantization == "int8" else _four_bits, quantization, dtype)


def _four_bits(quantization: str, dtype: torch.dtype, weight: torch.Tensor) -> torch.Tensor:
    packed, state = bnb.quantize_4bit(
        weight.to(dtype), compress_statistics=True, quant_type=quantization
    )
    return bnb.dequantize_4bit(packed, state)


def _int8(_: str, dtype: torch.dtype, weight: torch.Tensor) -> torch.Tensor:
    rows, scales, _ = bnb.int8_vectorwise_quant(weight.to(torch.float16))
    return bnb.int8_vectorwise_dequant(rows, scales).to(dtype)
