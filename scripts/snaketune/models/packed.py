"""Packed rows as tensors, and the loss over them with samples kept apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from snaketune.data.storage import Pack
from snaketune.data.template import IGNORE
from snaketune.models.attention import SEGMENTS
from snaketune.models.loss import chunked_cross_entropy


@dataclass(frozen=True)
class Batch:
    """One process's part of a micro-batch, flattened to a single row without padding.

    Attributes:
        input_ids: (1, tokens) int64.
        position_ids: (1, tokens) int64, from 0 in each sample.
        predicts: (supervised,) int64, the positions whose next token carries loss.
        targets: (supervised,) int64, those next tokens.
        weights: (supervised,) float32, how much each counts; None where all count the same.
        lengths: Tokens of each sample.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    lengths: list[int]
    weights: torch.Tensor | None = None

    def to(self, where: torch.device) -> "Batch":
        """The batch on a device."""
        tensors = (self.input_ids, self.position_ids, self.predicts, self.targets)
        ids, positions, predicts, targets = (tensor.to(where) for tensor in tensors)
        weights = None if self.weights is None else self.weights.to(where)
        return Batch(ids, positions, predicts, targets, self.lengths, weights)

    def loss_weight(self) -> float:
        """The sum of the weights: the supervised tokens where all count the same."""
        return len(self.targets) if self.weights is None else self.weights.sum().item()


def flatten(packs: Sequence[Pack]) -> Batch:
    """Put packs one after the other in a single row."""
    lengths = np.concatenate([pack.lengths for pack in packs])
    labels = np.concatenate([pack.labels for pack in packs])
    predicts = np.flatnonzero(labels[1:] != IGNORE)
    positions = np.concatenate([np.arange(length) for length in lengths])
    return Batch(
        _row(np.concatenate([pack.input_ids for pack in packs])),
        _row(positions),
        torch.from_numpy(predicts),
        torch.from_numpy(labels[predicts + 1].astype(np.int64)),
        lengths.tolist(),
        _weights(packs, predicts),
    )


_SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
"""Keys of models that change their logits after the output layer."""


def loss_sum(model: Any, batch: Batch) -> torch.Tensor:
    """The cross entropy summed over a batch's supervised tokens, weighted, in fp32.

    Logits are computed at those positions alone.
    """
    causal = causal_model(model)
    inputs = model_inputs(causal, batch)
    if has_plain_head(causal):
        hidden = causal.base_model(**inputs).last_hidden_state[0, batch.predicts]
        head = causal.get_output_embeddings().weight
        return chunked_cross_entropy(*_in_dtype(hidden, head), batch.targets, batch.weights)
    logits = model(**inputs, logits_to_keep=batch.predicts).logits[0].float()
    if batch.weights is None:
        return cross_entropy(logits, batch.targets, reduction="sum")
    return cross_entropy(logits, batch.targets, reduction="none") @ batch.weights


def model_inputs(model: Any, batch: Batch) -> dict[str, Any]:
    """What a model is called with, so that the samples of a batch do not see each other.

    They are kept apart by their lengths where our own attention runs, by their position ids
    elsewhere.
    """
    apart = causal_model(model).config._attn_implementation == SEGMENTS
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "use_cache": False,
        **({"segment_lengths": batch.lengths} if apart else {}),
    }


def causal_model(model: Any) -> Any:
    """Transformers' causal language model, inside PEFT's if there is one."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def has_plain_head(causal: Any) -> bool:
    """Tell whether logits are the last hidden states times a matrix that is here, and no more."""
    head = causal.get_output_embeddings()
    plain = type(head) is torch.nn.Linear and head.bias is None
    elsewhere = hasattr(head.weight, "ds_id") or head.weight.is_meta  # ZeRO stage 3, or on disk
    return (
        plain
        and not elsewhere
        and all(getattr(causal.config, key, None) in (None, 1.0) for key in _SCALED)
    )


def _in_dtype(hidden: torch.Tensor, head: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in the dtype in force: the output layer's, or autocast's."""
    where = hidden.device.type
    autocast = torch.is_autocast_enabled(where)
    dtype = torch.get_autocast_dtype(where) if autocast else head.dtype
    return hidden.to(dtype), head.to(dtype)


def _weights(packs: Sequence[Pack], predicts: np.ndarray) -> torch.Tensor | None:
    if all(pack.weights is None for pack in packs):
        return None
    weights = [
        np.ones(len(pack.labels), np.float32) if pack.weights is None else pack.weights
        for pack in packs
    ]
    return torch.from_numpy(np.concatenate(weights)[predicts + 1])


def _row(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64))[None]
