"""The random generators of a training: seeded, saved and restored."""

import os
import random

import numpy as np
import torch

from snaketune.experiment.schema import Train


def seed_everything(train: Train) -> None:
    """Seed every generator; with train.deterministic, allow repeatable algorithms only."""
    random.seed(train.seed)
    np.random.seed(train.seed % 2**32)
    torch.manual_seed(train.seed)
    if train.deterministic:
        # cuBLAS is repeatable only with a fixed workspace, which must be set before its first use
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of every generator that the loop draws from: torch's, for dropout."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
