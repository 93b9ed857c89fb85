"""LoRA's forward pass in the base's precision, with one pass over each tensor.

PEFT keeps LoRA weights in fp32 and computes with them in fp32: for a bf16 base every layer casts
its input, its result and both gradients. Here the small weights are rounded to the base's dtype
instead, and the update is added into the layer's result; weights, their gradients and the
optimizer stay in fp32. In an fp32 base the results are PEFT's own.
"""

from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer


class _AddLora(torch.autograd.Function):
    """result + scale * (x @ A.T) @ B.T, added in place."""

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(
        ctx: Any,
        result: torch.Tensor,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        rows, a, b = (each.to(result.dtype) for each in (x.reshape(-1, x.shape[-1]), a, b))
        inner = rows @ a.T
        result.view(-1, result.shape[-1]).addmm_(inner, b.T, alpha=scale)
        ctx.save_for_backward(rows, a, b, inner)
        ctx.scale, ctx.dtype = scale, x.dtype
        ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, a, b, inner = ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        grad_inner = (flat @ b).mul_(ctx.scale)
        grad_x = (grad_inner @ a).to(ctx.dtype).view(*gradient.shape[:-1], -1)
        grad_a = (grad_inner.T @ rows).float()
        grad_b = (flat.T @ inner).float().mul_(ctx.scale)
        return gradient, grad_x, grad_a, grad_b, None


def speed_up(model: PeftModel) -> None:
    """Replace the forward pass of every plain LoRA layer of a model; DoRA keeps PEFT's own."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and not layer.lora_variant and layer.lora_A:
            layer.forward = MethodType(_forward, layer)


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if layer.disable_adapters or layer.merged:
        return type(layer).forward(layer, x, *args, **kwargs)
    result = layer.base_layer(x, *args, **kwargs)
    if type(layer.base_layer) is not torch.nn.Linear:
        result = result.clone()  # a quantised layer may return a view
    [name] = layer.active_adapters
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    return _AddLora.apply(result, layer.lora_dropout[name](x), a, b, layer.scaling[name])
