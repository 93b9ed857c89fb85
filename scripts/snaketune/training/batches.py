"""Micro-batches by iteration number: what is trained on when, and how many tokens count."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from snaketune.data.storage import Pack, Packs
from snaketune.data.template import IGNORE
from snaketune.experiment.schema import Train
from snaketune.models.packed import Batch, flatten


class Batches:
    """All micro-batches of a run, addressed by iteration so that resuming needs no replay.

    Each epoch is a fresh seeded permutation of the packs, cut into micro-batches of
    `batch_size` for each process; the last of an epoch may be smaller.

    Args:
        rank: This process, of `processes` that share each micro-batch.
    """

    def __init__(
        self,
        packs: Packs,
        train: Train,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.packs, self.seed, self.rank, self.processes = packs, train.seed, rank, processes
        self.size = train.batch_size * processes
        self.per_epoch, self.total = train.iterations(len(packs), processes)
        self._weights = packs.loss_weights()
        self._order = lru_cache(maxsize=2)(self._permutation)

    def indices(self, iteration: int) -> np.ndarray:
        """The packs of an iteration, numbered from 1, over all processes."""
        epoch, step = divmod(iteration - 1, self.per_epoch)
        return self._order(epoch)[step * self.size : (step + 1) * self.size]

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.packs))

    def loss_weight(self, iterations: Sequence[int]) -> float:
        """The sum of the tokens' loss weights in some iterations, over all processes."""
        return float(sum(self._weights[self.indices(i)].sum() for i in iterations))

    def places(self, iteration: int) -> list[str]:
        """Where the rows of an iteration stand, as file:line, over all processes."""
        return [place for index in self.indices(iteration) for place in self.packs.places(index)]

    def most_tokens(self) -> int:
        """The tokens of the largest micro-batch that a process could get."""
        return min(self.size // self.processes, len(self.packs)) * self.packs.most_tokens()

    def batch(self, iteration: int) -> Batch:
        """This process's part of an iteration."""
        indices = self.indices(iteration)
        own = [self.packs[int(index)] for index in indices[self.rank :: self.processes]]
        if own:
            return flatten(own)
        spare = self.packs[int(indices[0])]  # the last batch can be too small for all processes
        return flatten([Pack(spare.input_ids, np.full_like(spare.labels, IGNORE), spare.lengths)])
