"""The processes of a run: starting the group, and the few things they tell each other."""

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from snaketune.errors import UserError

log = logging.getLogger(__name__)


def start() -> None:
    """Join the process group that DeepSpeed needs, alone if no launcher started this process.

    Raises:
        UserError: There is no C++ compiler for the kernel DeepSpeed builds on a CPU.
    """
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

    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    if "RANK" not in os.environ:
        os.environ.update(alone, MASTER_PORT="0")
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def rank() -> int:
    """Return this process's number, 0 for the first or only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(value: Any) -> list[Any] | None:
    """Return every process's value in rank order on rank 0, None elsewhere."""
    if count() == 1:
        return [value]
    everyone: list[Any] | None = [None] * count() if rank() == 0 else None
    dist.gather_object(value, everyone)
    return everyone


def add(value: torch.Tensor) -> torch.Tensor:
    """Return the sum over all processes."""
    if count() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def wait() -> None:
    """Let every process reach this line before any goes on."""
    if count() > 1:
        dist.barrier()
