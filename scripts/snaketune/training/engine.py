"""Engines: how gradients become an update. All take the same loss and give the same weights.

To add one: a name in `DEEPSPEED` of experiment/schema.py, an entry in `ENGINES`, and, unless an
existing class serves it, a class with the methods of `Engine`.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from snaketune.core.errors import UserError
from snaketune.experiment.schema import Train
from snaketune.models.optimizers import OPTIMIZERS
from snaketune.models.trainable import trainable_parameters
from snaketune.training import processes

ZERO_BUCKET = 5_000_000
"""Elements in a ZeRO bucket. DeepSpeed's default of 5e8, twice with overlap_comm, takes 1.9 GiB
that gains nothing on one GPU."""

Json = dict[str, Any]
"""The content of the file that `train.deepspeed` names: DeepSpeed's own keys, whatever they are."""


class Engine(Protocol):
    """One way of running backward passes and updates.

    Attributes:
        splits_weights: Whether each process holds a part of the weights, so that a forward pass
            takes all processes.
    """

    splits_weights: bool

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of `loss`; `last` announces that `update` follows."""

    def update(self, lr: float) -> float:
        """Clip, update the weights, clear the gradients; return the norm before clipping."""

    def gathered_weights(self) -> AbstractContextManager[Any]:
        """Context manager: gather full weights on every rank."""

    def state(self) -> Any:
        """The optimizer's state on rank 0; collective, so all ranks must call it."""

    def load_state(self, state: Any) -> None:
        """Restore what `state` returned; the model must have the weights of that time."""


class EngineEntry(Protocol):
    """An entry of `ENGINES`.

    Attributes:
        needs_deepspeed: Whether DeepSpeed must be started.
        weight_copies: fp32 copies of the trained weights in a checkpoint.
    """

    needs_deepspeed: bool
    weight_copies: int

    def splits_weights(self, own: Json | None) -> bool:
        """Whether each process will hold a part of the weights."""

    def create(self, model: torch.nn.Module, train: Train, own: Json | None) -> Engine:
        """Make the engine; `own` is the content of the file that `train.deepspeed` names."""


def make_optimizer(model: torch.nn.Module, train: Train) -> torch.optim.Optimizer:
    """Make `train.optimizer` over the trainable weights."""
    return OPTIMIZERS[train.optimizer].create(
        trainable_parameters(model),
        lr=train.lr,
        betas=train.betas,
        weight_decay=train.weight_decay,
    )


class PlainEngine:
    """torch alone. Several processes add up their gradients before each update.

    torch's DistributedDataParallel sends gradients while it computes others, which pays off for
    whole models; it also wraps the forward pass, and our loss must look inside the model.
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

    def gathered_weights(self) -> AbstractContextManager[Any]:
        """Nothing to do: every process has all weights."""
        return nullcontext()

    def state(self) -> dict[str, Any]:
        """The optimizer's state, the same in every process."""
        return self.optimizer.state_dict()

    def load_state(self, state: Any) -> None:
        """Restore the optimizer's state."""
        self.optimizer.load_state_dict(state)


class ZeroEngine:
    """DeepSpeed ZeRO: optimizer state (1), gradients (2) and weights (3) split over processes.

    The adapter's weights stay in fp32, as with PlainEngine, so both give the same updates.
    """

    def __init__(self, model: torch.nn.Module, train: Train, config: Json) -> None:
        import deepspeed  # seconds, and only with ZeRO

        self.splits_weights = config["zero_optimization"]["stage"] == 3
        self.parameters = trainable_parameters(model)
        self.engine, self.optimizer, *_ = deepspeed.initialize(
            model=model, optimizer=make_optimizer(model, train), config=config
        )

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of `loss`, reducing over the processes before an update."""
        self.engine.set_gradient_accumulation_boundary(last)
        if self.splits_weights:
            # The engine's own forward pass does this, and our loss does not go through it. Without
            # it stage 3 replaces the gradients of earlier micro-batches (DeepSpeed 0.19).
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

    def gathered_weights(self) -> AbstractContextManager[Any]:
        """Context manager: gather the weights that stage 3 splits."""
        if not self.splits_weights:
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters(self.parameters)

    def state(self) -> list[dict[str, Any]] | None:
        """The state of every process, in rank order, on rank 0."""
        own = self.optimizer.state_dict()
        for unneeded in ("loss_scaler", "param_slice_mappings"):  # objects, which we never pickle
            own.pop(unneeded, None)
        own["zero_stage"] = int(own["zero_stage"])  # an enum, which is an object too
        return processes.gather(own)

    def load_state(self, state: Any) -> None:
        """Restore each process's own part."""
        scaler = {"loss_scaler": self.optimizer.loss_scaler}  # not saved, but expected
        parts = [part | scaler for part in state]
        self.optimizer.load_state_dict(parts, load_from_fp32_weights=True)


@dataclass(frozen=True)
class PlainEntry:
    """No DeepSpeed."""

    needs_deepspeed = False
    weight_copies = 1

    def splits_weights(self, own: Json | None) -> bool:
        """Never."""
        return False

    def create(self, model: torch.nn.Module, train: Train, own: Json | None) -> Engine:
        """Make the engine."""
        return PlainEngine(model, train)


@dataclass(frozen=True)
class ZeroEntry:
    """A stage of ZeRO, or what the user's own file says.

    Attributes:
        stage: None for the file's.
        offload: Keep the optimizer's state, and with stage 3 the weights, in the CPU's memory.
    """

    stage: int | None
    offload: bool = False
    needs_deepspeed = True
    weight_copies = 2  # DeepSpeed keeps one more in the optimizer's state

    def splits_weights(self, own: Json | None) -> bool:
        """Stage 3 splits them."""
        return self._zero(own)["stage"] == 3

    def create(self, model: torch.nn.Module, train: Train, own: Json | None) -> Engine:
        """Make the engine."""
        return ZeroEngine(model, train, self.config(train, own))

    def config(self, train: Train, own: Json | None) -> Json:
        """DeepSpeed's configuration; what the loop decides replaces the file's keys."""
        return {
            **(own or {}),
            "train_batch_size": train.batch_size * processes.count(),
            "train_micro_batch_size_per_gpu": train.batch_size,
            # The loop announces updates itself: `set_gradient_accumulation_boundary`. DeepSpeed's
            # own counting divides the loss, and ours is weighted by tokens already.
            "gradient_accumulation_steps": 1,
            "gradient_clipping": train.max_grad_norm,
            "zero_allow_untested_optimizer": True,
            # DeepSpeed would replace the optimizer by one that it compiles for minutes
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": self._zero(own),
        }

    def _zero(self, own: Json | None) -> Json:
        if settings := (own or {}).get("zero_optimization"):
            return settings
        if self.stage is None:
            raise UserError(
                "the file of train.deepspeed has no `zero_optimization`, which says what to split."
                '\n  Fix: add e.g. "zero_optimization": {"stage": 2}'
            )
        settings = {
            "stage": self.stage,
            "overlap_comm": False,
            "reduce_bucket_size": ZERO_BUCKET,
            "allgather_bucket_size": ZERO_BUCKET,
        }
        if self.offload:
            settings["offload_optimizer"] = {"device": "cpu"}
            if self.stage == 3:
                settings["offload_param"] = {"device": "cpu"}
        return settings


ENGINES: dict[str, EngineEntry] = {
    "none": PlainEntry(),
    "zero1": ZeroEntry(1),
    "zero2": ZeroEntry(2),
    "zero2_offload": ZeroEntry(2, offload=True),
    "zero3": ZeroEntry(3),
    "zero3_offload": ZeroEntry(3, offload=True),
}
"""By the names of `train.deepspeed`. The schema lists the names, as it lies below this package and
must load without torch; a test checks that both are the same."""

OWN_FILE = ZeroEntry(None)


def engine_entry(train: Train) -> EngineEntry:
    """Look up `train.deepspeed`: a name, or else a path to a JSON file."""
    return ENGINES.get(train.deepspeed, OWN_FILE)


def set_lr(optimizer: Any, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _add_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Sum the gradients over all processes, in one message."""
    # a process whose batch was empty has no gradients, but must take part
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    vector = parameters_to_vector(gradients)
    dist.all_reduce(vector)
    vector_to_parameters(vector, gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
