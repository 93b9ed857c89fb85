"""Engines: how gradients become an update. All take the same loss and give the same weights."""

from typing import Any, Protocol

import torch

from snaketune.errors import UserError
from snaketune.experiment.schema import Train
from snaketune.models.adapter import trainable_parameters
from snaketune.training import processes

ZERO_BUCKET = 5_000_000
"""Elements in a ZeRO-2 bucket. DeepSpeed's default of 5e8, twice with overlap_comm, takes 1.9 GiB
that nothing repays on one GPU."""


class Engine(Protocol):
    """One way of running backward passes and updates."""

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of `loss`; `last` says that an update follows."""

    def update(self, lr: float) -> float:
        """Clip, update the weights, clear the gradients; return the norm before clipping."""

    def state(self) -> Any:
        """Return the optimizer's state on rank 0; all ranks must call it."""

    def load_state(self, state: Any) -> None:
        """Put back what `state` returned."""


def make_engine(model: torch.nn.Module, train: Train) -> Engine:
    """Return the engine that `train.deepspeed` asks for."""
    return PlainEngine(model, train) if train.deepspeed == "none" else ZeroEngine(model, train)


def make_optimizer(model: torch.nn.Module, train: Train) -> torch.optim.AdamW:
    """Return fused AdamW over the trainable weights."""
    return torch.optim.AdamW(
        trainable_parameters(model), lr=train.lr, weight_decay=train.weight_decay, fused=True
    )


class PlainEngine:
    """torch alone, one process."""

    def __init__(self, model: torch.nn.Module, train: Train) -> None:
        self.parameters = trainable_parameters(model)
        self.optimizer = make_optimizer(model, train)
        self.max_grad_norm = train.max_grad_norm

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of `loss`."""
        loss.backward()

    def update(self, lr: float) -> float:
        """Clip, update, clear; return the gradient's norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm.item()

    def state(self) -> dict[str, Any]:
        """Return AdamW's state."""
        return self.optimizer.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Put back AdamW's state."""
        self.optimizer.load_state_dict(state)


class ZeroEngine:
    """DeepSpeed ZeRO stage 2: gradients and optimizer state are split over the processes.

    The adapter's weights stay in fp32, as with PlainEngine, so both give the same updates.
    """

    def __init__(self, model: torch.nn.Module, train: Train) -> None:
        import deepspeed

        self.engine, self.optimizer, *_ = deepspeed.initialize(
            model=model, optimizer=make_optimizer(model, train), config=_zero_config(train)
        )

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of `loss`, reducing over the processes before an update."""
        self.engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages over the processes; our loss is already a share of the whole
        self.engine.backward(loss * processes.count())
        if not last:
            self.engine.step()

    def update(self, lr: float) -> float:
        """Clip, update, clear; return the gradient's norm before clipping."""
        set_lr(self.optimizer, lr)
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def state(self) -> list[dict[str, Any]] | None:
        """Return the state of every process, in rank order, on rank 0."""
        own = self.optimizer.state_dict()
        for unneeded in ("loss_scaler", "param_slice_mappings"):  # objects, which we never pickle
            own.pop(unneeded)
        own["zero_stage"] = int(own["zero_stage"])
        return processes.gather(own)

    def load_state(self, state: list[dict[str, Any]]) -> None:
        """Put back each process's own part.

        Raises:
            UserError: The checkpoint was written with another number of processes.
        """
        if len(state) != processes.count():
            raise UserError(
                f"the checkpoint was written by {len(state)} processes, now there are "
                f"{processes.count()}.\n  Fix: run with {len(state)} devices "
                "(CUDA_VISIBLE_DEVICES), or delete the checkpoints to start again."
            )
        self.optimizer.load_state_dict(state, load_from_fp32_weights=True)


def set_lr(optimizer: Any, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _zero_config(train: Train) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": train.batch_size,
        "gradient_accumulation_steps": 1,  # the loop says itself when an update follows
        "gradient_clipping": train.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": 2,
            "overlap_comm": False,
            "reduce_bucket_size": ZERO_BUCKET,
            "allgather_bucket_size": ZERO_BUCKET,
        },
    }
