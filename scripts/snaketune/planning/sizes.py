"""Bytes of memory and disk, from the heads of files and the training stage's arithmetic."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snaketune.core.machine import cpu_bf16, gpus
from snaketune.models.memory import needed_memory
from snaketune.models.optimizers import OPTIMIZERS

_FOLDERS = {"provenance.json", "data.json"}
"""Files that stand for the folder they are in."""

_PROCESS = 700 * 2**20
"""Bytes that a training holds on a CPU beside model and batch: the peak of one with a tiny model.

With it the embedded model's LoRA is estimated at 1.5 GiB, and measured at 1.39."""

_BYTES = {"nf4": 0.55, "fp4": 0.55, "int8": 1.05}
"""Of a weight, with the constants of its quantisation."""

_LOGITS = 128
"""Rows of logits that the loss computes at a time."""

_NOT_ADAPTED = ("embed_tokens", "lm_head")
"""Matrices that `all-linear` leaves out, as they are no layers or the output layer."""


def size_of(path: Path) -> int | None:
    """Return the bytes of a file, or of a folder or one that a file stands for; None if gone."""
    if path.name in _FOLDERS:
        path = path.parent
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else None


def weights_bytes(base: Path) -> int | None:
    """Return the bytes of a model's weights on disk, None if it is not there."""
    return sum(file.stat().st_size for file in base.glob("*.safetensors")) or None


def weight_shapes(folder: Path) -> dict[str, Sequence[int]]:
    """Return the shape of every weight in a folder of safetensors, from the files' heads."""
    shapes: dict[str, Sequence[int]] = {}
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        head.pop("__metadata__", None)
        shapes |= {name: told["shape"] for name, told in head.items()}
    return shapes


def count_trained(base: Path, settings: Mapping[str, Any]) -> int:
    """Return about how many weights training changes: LoRA's two matrices beside each layer.

    Args:
        settings: By dotted key.
    """
    shapes = {name.removesuffix(".weight"): each for name, each in weight_shapes(base).items()}
    if settings["method.name"] == "full":
        return sum(map(math.prod, shapes.values()))
    targets, saved = settings["method.target_modules"], settings["method.modules_to_save"]
    named = [(name.rpartition(".")[2], shape) for name, shape in shapes.items()]
    adapted = [shape for name, shape in named if len(shape) == 2 and _is_target(name, targets)]
    whole = [shape for name, shape in named if name in saved]
    return settings["method.r"] * sum(map(sum, adapted)) + sum(map(math.prod, whole))


def training_memory(base: Path, settings: Mapping[str, Any], longest: int) -> int | None:
    """Return the bytes that training takes at its peak, without loading the model; None if unknown.

    Args:
        settings: By dotted key.
        longest: Tokens of the largest pack.
    """
    if not (base / "config.json").exists():
        return None
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    if "hidden_size" not in config:
        return None
    on_gpu, size = gpus() > 0, _number_bytes(settings)
    count = sum(math.prod(shape) for shape in weight_shapes(base).values())
    return needed_memory(
        config,
        tokens=longest * settings["train.batch_size"],
        logits=_LOGITS,
        held=int(count * _held_bytes(settings)) + (0 if on_gpu else _PROCESS),
        trained=count_trained(base, settings),
        optimizer=settings["train.optimizer"],
        size=size,
        kernels=0 if on_gpu else size * count,
    ).total(settings["train.gradient_checkpointing"] is True)


def checkpoint_bytes(base: Path, settings: Mapping[str, Any]) -> int | None:
    """Return about how large a checkpoint is: fp32 weights and the optimizer's moments."""
    if not weights_bytes(base):
        return None
    weights = 4 if settings["train.deepspeed"] == "none" else 8  # DeepSpeed has them once more
    return count_trained(base, settings) * (
        weights + OPTIMIZERS[settings["train.optimizer"]].state_bytes
    )


def _number_bytes(settings: Mapping[str, Any]) -> int:
    precision = settings["train.precision"]
    fast = precision == "bf16" or (precision == "auto" and bool(gpus() or cpu_bf16()))
    return 2 if fast else 4


def _held_bytes(settings: Mapping[str, Any]) -> float:
    if settings["method.name"] == "full":
        return 4
    quantized = settings["method.name"] == "qlora"
    return _BYTES[settings["method.quantization"]] if quantized else _number_bytes(settings)


def _is_target(layer: str, targets: str | Sequence[str]) -> bool:
    return layer not in _NOT_ADAPTED if targets == "all-linear" else layer in targets
