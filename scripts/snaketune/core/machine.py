"""What machine this is, without importing torch, which takes seconds."""

import os
import re
from itertools import takewhile
from pathlib import Path

_CPU_BF16 = re.compile(r"\b(avx512_bf16|amx_bf16|bf16)\b")

_DRIVER = Path("/proc/driver/nvidia/gpus")


def cpu_bf16() -> str | None:
    """Return the instructions with which this CPU multiplies bf16 fast, None if it has none."""
    cpuinfo = Path("/proc/cpuinfo")
    found = _CPU_BF16.search(cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else None


def gpus() -> int:
    """Return how many NVIDIA GPUs training would see, by their driver."""
    there = len(list(_DRIVER.glob("*")))
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return there
    visible = takewhile(lambda each: each.strip() not in ("", "-1"), shown.split(","))
    return min(there, len(list(visible)))
