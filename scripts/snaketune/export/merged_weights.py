"""The weights of a base and what was trained on it, as one set, computed a block at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch

from snaketune.core.errors import UserError
from snaketune.export.model_assembly import Values
from snaketune.export.weight_delta import Trained, in_blocks
from snaketune.models.weights import Stored


@dataclass(frozen=True)
class MergedWeights:
    """A base and what was trained on it.

    Attributes:
        base: The base's weights.
        tied: The output layer's weight and the embeddings', where the base has one for both.
        trained: What training changed.
        dtype: Of the result; None for each tensor's own.
        rounded: Weights that are rounded first as training held them, and how.
    """

    base: Stored
    tied: dict[str, str]
    trained: Trained
    dtype: torch.dtype | None = None
    rounded: dict[str, Callable[[torch.Tensor], torch.Tensor]] = field(default_factory=dict)

    @property
    def unties(self) -> bool:
        """Whether one of two tied weights was trained apart from the other."""
        both = {*self.tied, *self.tied.values()}
        return not self.trained.is_whole_model and not both.isdisjoint(self.trained.names)

    def shapes(self) -> dict[str, torch.Tensor]:
        """Return shape and dtype of every tensor of the result, without values."""
        names = dict.fromkeys([*self.base, *(self.tied if self.unties else ())])
        shapes = {name: self.base.shapes[self._source(name)] for name in names}
        return {name: shape.to(self._stored(shape)) for name, shape in shapes.items()}

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """Return a tensor of the result in consecutive blocks of rows.

        Raises:
            UserError: It is not finite: the training diverged, or the dtype is too small for it.
        """
        weight = self._before(name)
        dtype = self._stored(self.base.shapes[self._source(name)])  # rounded ones have another
        if name not in self.trained.names and weight.dtype == dtype:
            yield from in_blocks(weight)
            return
        for block in self.trained.blocks(name, weight):
            low, high = block.aminmax()  # 25 times as fast as isfinite; NaN is in both
            most = torch.finfo(dtype).max
            if not -most <= low <= high <= most:
                raise _not_finite(name, max(-low, high), dtype)
            yield block.to(dtype)

    def before(self) -> Values:
        """Return the weights that training saw in another form than the base's own."""
        return {name: partial(self._before, name) for name in self.rounded}

    def after(self) -> Values:
        """Return the weights of the result that are not the base's own."""
        apart = {*self.tied, *self.tied.values()} if self.unties else set()
        names = {*self.trained.names, *self.rounded, *apart}
        return {name: partial(self._whole, name) for name in names}

    def _before(self, name: str) -> torch.Tensor:
        weight = self.base[self._source(name)]
        return self.rounded[name](weight) if name in self.rounded else weight

    def _whole(self, name: str) -> torch.Tensor:
        return torch.cat(list(self.blocks(name)))

    def _source(self, name: str) -> str:
        return name if name in self.base else self.tied[name]

    def _stored(self, tensor: torch.Tensor) -> torch.dtype:
        return self.dtype if self.dtype and tensor.is_floating_point() else tensor.dtype


def _not_finite(name: str, largest: torch.Tensor, dtype: torch.dtype) -> UserError:
    if torch.isfinite(largest):
        short = str(dtype).removeprefix("torch.")
        return UserError(
            f"the merged {name} holds {largest:.3g}, too large for {short}.\n"
            "  Nothing was written. Fix: set export.dtype: bf16 or fp32."
        )
    return UserError(
        f"{name} holds NaN or infinity after training: the training diverged.\n"
        "  Nothing was written. Fix: lower train.lr, or merge an earlier iteration."
    )
