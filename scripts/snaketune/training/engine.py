"""Engines: how gradients become an update. All take the same loss and give the same weights."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from snaketune.experiment.schema import Train
from snaketune.models.adapter import trainable_parameters
from snaketune.training import processes

ZERO_BUCKET = 5_000_000
"""Elements in a ZeRO bucket. DeepSpeed's default of 5e8, twice with overlap_comm, takes 1.9 GiB
that nothing repays on one GPU."""


class Engine(Protocol):
    """One way of running backward passes and updates.

    `splits_weights` tells that a forward pass needs every process.
    """

    splits_weights: bool

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of `loss`; `last` says that an update follows."""

    def update(self, lr: float) -> float:
        """Clip, update the weights, clear the gradients; return the norm before clipping."""

    def whole_weights(self) -> AbstractContextManager[Any]:
        """Give a block in which every process sees all weights."""

    def state(self) -> Any:
        """Return the optimizer's state on rank 0; all ranks must call it."""

    def load_state(self, state: Any) -> None:
        """Put back what `state` returned, the model's weights being those of that time."""


def make_engine(model: torch.nn.Module, train: Train, deepspeed: dict[str, Any] | None) -> Engine:
    """Return the engine that `train.deepspeed` asks for.

    Args:
        deepspeed: The configuration for DeepSpeed, None to do without.
    """
    return PlainEngine(model, train) if deepspeed is None else ZeroEngine(model, train, deepspeed)


def make_optimizer(model: torch.nn.Module, train: Train) -> torch.optim.Optimizer:
    """Return AdamW over the trainable weights; those of fewer bits come from bitsandbytes."""
    create: Callable[..., torch.optim.Optimizer]
    if train.optimizer == "adamw":
        create = torch.optim.AdamW
        options = {"fused": True}
    else:
        import bitsandbytes

        names = {
            "adamw_8bit": "AdamW8bit",
            "paged_adamw": "PagedAdamW",
            "paged_adamw_8bit": "PagedAdamW8bit",
        }
        create, options = getattr(bitsandbytes.optim, names[train.optimizer]), {}
    return create(
        trainable_parameters(model),
        lr=train.lr,
        betas=train.betas,
        weight_decay=train.weight_decay,
        **options,
    )


class PlainEngine:
    """torch alone. Several processes add up their gradients before each update.

    torch's DistributedDataParallel sends gradients while it computes others, which repays for
    whole models; it also wraps the forward pass, and here the loss looks inside the model.
    """

    splits_weights = False

    def __init__(self, model: torch.nn.Module, train: Train) -> None:
        self.parameters = trainable_parameters(model)
        self.optimizer = make_optimizer(model, train)
        self.max_grad_norm = train.max_grad_norm

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of `loss`."""
        loss.backward()

    def update(self, lr: float) -> float:
        """Clip, update, clear; return the gradient's norm before clipping."""
        if processes.count() > 1:
            _add_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm.item()

    def whole_weights(self) -> AbstractContextManager[Any]:
        """Give a block; every process has all weights anyway."""
        return nullcontext()

    def state(self) -> dict[str, Any]:
        """Return AdamW's state."""
        return self.optimizer.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Put back AdamW's state."""
        self.optimizer.load_state_dict(state)


class ZeroEngine:
    """DeepSpeed ZeRO: optimizer state (1), gradients (2) and weights (3) split over processes.

    The adapter's weights stay in fp32, as with PlainEngine, so both give the same updates.
    """

    def __init__(self, model: torch.nn.Module, train: Train, config: dict[str, Any]) -> None:
        import deepspeed

        self.splits_weights = config["zero_optimization"]["stage"] == 3
        self.parameters = trainable_parameters(model)
        self.engine, self.optimizer, *_ = deepspeed.initialize(
            model=model, optimizer=make_optimizer(model, train), config=config
        )

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of `loss`, reducing over the processes before an update."""
        self.engine.set_gradient_accumulation_boundary(last)
        if self.splits_weights:  # what the engine's own forward pass does: add, do not replace
            self.optimizer.clear_backward_seen_flag()
        # DeepSpeed averages over the processes; our loss is already a share of the whole
        self.engine.backward(loss * processes.count())
        if not last:
            self.engine.step()

    def update(self, lr: float) -> float:
        """Clip, update, clear; return the gradient's norm before clipping."""
        set_lr(self.optimizer, lr)
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def whole_weights(self) -> AbstractContextManager[Any]:
        """Give a block in which the weights that stage 3 splits are whole."""
        if not self.splits_weights:
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters(self.parameters)

    def state(self) -> list[dict[str, Any]] | None:
        """Return the state of every process, in rank order, on rank 0."""
        own = self.optimizer.state_dict()
        for unneeded in ("loss_scaler", "param_slice_mappings"):  # objects, which we never pickle
            own.pop(unneeded, None)
        own["zero_stage"] = int(own["zero_stage"])
        return processes.gather(own)

    def load_state(self, state: list[dict[str, Any]]) -> None:
        """Put back each process's own part."""
        scaler = {"loss_scaler": self.optimizer.loss_scaler}
        whole = [part | scaler for part in state]
        self.optimizer.load_state_dict(whole, load_from_fp32_weights=True)


def set_lr(optimizer: Any, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def deepspeed_config(train: Train, own: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what DeepSpeed is configured with, None where `train.deepspeed` is none.

    Args:
        own: The content of the JSON file that `train.deepspeed` names; the keys that the loop
            decides (batch, accumulation, clipping) take its place.
    """
    if train.deepspeed == "none":
        return None
    zero = (own or {}).get("zero_optimization") or _zero(train.deepspeed)
    return {
        **(own or {}),
        "train_batch_size": train.batch_size * processes.count(),
        "train_micro_batch_size_per_gpu": train.batch_size,
        "gradient_accumulation_steps": 1,  # the loop says itself when an update follows
        "gradient_clipping": train.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }


def _zero(name: str) -> dict[str, Any]:
    stage = int(name.removeprefix("zero")[0])
    settings: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": False,
        "reduce_bucket_size": ZERO_BUCKET,
        "allgather_bucket_size": ZERO_BUCKET,
    }
    if name.endswith("_offload"):
        settings["offload_optimizer"] = {"device": "cpu"}
        if stage == 3:
            settings["offload_param"] = {"device": "cpu"}
    return settings


def _add_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Sum the gradients over all processes, in one message."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    vector = parameters_to_vector(gradients)
    dist.all_reduce(vector)
    vector_to_parameters(vector, gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
