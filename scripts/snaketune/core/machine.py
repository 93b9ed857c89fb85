"""Hardware detection without importing torch, which takes seconds."""

import os
import re
from itertools import takewhile
from pathlib import Path

_CPU_BF16 = re.compile(r"\b(avx512_bf16|amx_bf16|bf16)\b")

_DRIVER = Path("/proc/driver/nvidia/gpus")


def cpu_bf16() -> str | None:
    """The CPU's instructions for fast bf16 products, e.g. `amx_bf16`; None if it has none."""
    cpuinfo = Path("/proc/cpuinfo")
    match = _CPU_BF16.search(cpuinfo.read_text()) if cpuinfo.exists() else None
    return match[1] if match else None


def gpus() -> int:
    """The number of NVIDIA GPUs that training would see, according to the driver."""
    installed = len(list(_DRIVER.glob("*")))
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return installed
    # CUDA ignores everything after the first invalid index
    visible = takewhile(lambda index: index.strip() not in ("", "-1"), setting.split(","))
    return min(installed, len(list(visible)))
