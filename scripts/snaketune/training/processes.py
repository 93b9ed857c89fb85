"""The processes of a run: starting the group, and the few things they tell each other."""

import atexit
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from snaketune.core.errors import UserError
from snaketune.core.files import locked

log = logging.getLogger(__name__)


def process_count(requested: int | None) -> int:
    """How many processes to start: as many as requested, else one for each GPU, or one.

    Raises:
        UserError: There are fewer GPUs than requested.
    """
    devices = torch.cuda.device_count()
    if devices and (requested or 1) > devices:
        raise UserError(
            f"train.processes: {requested}, and this machine shows {devices} GPUs.\n"
            "  Fix: set train.processes to that (train.accumulate times as high keeps the batch), "
            "or show more of them (CUDA_VISIBLE_DEVICES)."
        )
    return requested or max(1, devices)


def start(deepspeed: bool) -> None:
    """Join the group of processes, once; DeepSpeed needs one even for a process alone.

    Raises:
        UserError: There is no C++ compiler for the kernel DeepSpeed builds on a CPU.
    """
    if dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if deepspeed:
        _start_deepspeed()
    elif "RANK" in os.environ:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if dist.is_initialized() and dist.get_backend() == "gloo":
        # left to itself, one process in four aborts at its exit: gloo's threads outlive Python
        atexit.register(dist.destroy_process_group)


def _start_deepspeed() -> None:
    if not torch.cuda.is_available() and not shutil.which(os.environ.get("CXX", "c++")):
        raise UserError(
            "DeepSpeed compiles a small C++ extension when it starts on a CPU, and there is no "
            "C++ compiler.\n  Fix: install one (Debian: apt install g++; conda: gxx), or set "
            "train.deepspeed: none."
        )
    # its build needs ninja, which is installed beside the interpreter
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    log.info("starting DeepSpeed; its first start on a CPU compiles a kernel, about a minute")
    import deepspeed

    _build_kernel()
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    if "RANK" not in os.environ:
        os.environ.update(alone, MASTER_PORT="0")
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def _build_kernel() -> None:
    """Compile what DeepSpeed needs on a CPU, past the lock of a compilation that was killed.

    torch's lock is a mere file, for which everyone after a `kill -9` would wait for ever; ours
    ends with its process.
    """
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import get_default_build_root

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if torch.cuda.is_available() or builder is None:
        return
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    with locked(root):
        for left in root.glob(f"**/{builder.NAME}/lock"):
            left.unlink()
        builder.load()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(value: Any) -> list[Any] | None:
    """Every process's value in rank order on rank 0, None elsewhere."""
    if count() == 1:
        return [value]
    everyone: list[Any] | None = [None] * count() if rank() == 0 else None
    dist.gather_object(value, everyone)
    return everyone


def add(value: torch.Tensor) -> torch.Tensor:
    """The sum over all processes."""
    if count() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def total(*numbers: int, device: torch.device) -> list[int]:
    if count() == 1:
        return list(numbers)
    return add(torch.tensor(numbers, device=device)).tolist()


def barrier() -> None:
    """Let every process reach this line before any goes on."""
    if count() > 1:
        dist.barrier()
