"""The folder that DeepSpeed writes a checkpoint to: weights put together from its processes.

    mp_rank_00_model_states.pt, or in stage 3 zero_pp_rank_K_mp_rank_00_model_states.pt
        `module`: weights in 16 bits, in stage 3 empty; `param_shapes`: what was trained
    zero_pp_rank_K_mp_rank_00_optim_states.pt, with bf16 named bf16_zero_pp_rank_...
        process K's part of the trained weights in fp32, as flat vectors

Stages 1 and 2 lay the weights of a group one after the other and cut the whole into as many parts
as there are processes; stage 3 cuts each weight.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from snaketune.bases.safe_unpickle import are_weights, load_inert
from snaketune.core.errors import UserError

log = logging.getLogger(__name__)


def load_zero(folder: Path) -> dict[str, Any]:
    """Return a DeepSpeed checkpoint, with the whole weights as `module`, in fp32 where it has them.

    Raises:
        UserError: A file is missing or damaged, or they do not belong together.
    """
    models = sorted(folder.glob("*model_states.pt"))
    if not models:
        raise UserError(
            f"{folder} holds no *model_states.pt: it is not the folder of a DeepSpeed checkpoint.\n"
            "  Fix: name a folder such as work_dirs/NAME/iter_500.pth, or a file."
        )
    state = load_inert(models[0])
    module = state.get("module") or {}
    if not are_weights(module):
        raise UserError(
            f"{models[0]} holds other things than weights by name in `module`.\n"
            "  Fix: name the folder of a DeepSpeed checkpoint, such as work_dirs/NAME/iter_500.pth."
        )
    weights = {name: each for name, each in module.items() if each.numel()}
    parts = [load_inert(file) for file in _of_all_processes(folder)]
    if parts:
        optimizers = [part.get("optimizer_state_dict") for part in parts]
        weights |= _trained(folder, state.get("param_shapes"), optimizers)
        shared = state.get("shared_params") or {}
        weights |= {alias: weights[name] for alias, name in shared.items() if name in weights}
    elif models[0].name.startswith("zero_pp_rank"):
        raise UserError(
            f"{folder} is of ZeRO stage 3 and lacks *_optim_states.pt, which hold its weights.\n"
            "  Fix: copy all files of the checkpoint."
        )
    else:
        log.info("%s has no *_optim_states.pt: its 16-bit weights are used", folder)
    return state | {"module": weights}


def _of_all_processes(folder: Path) -> list[Path]:
    """Return the optimizer's files by process.

    Raises:
        UserError: One between is missing.
    """
    found = {}
    for file in folder.glob("*_optim_states.pt"):
        rank = re.search(r"zero_pp_rank_(\d+)_", file.name)
        found[int(rank[1]) if rank else 0] = file
    _require_processes(folder, found, max(found, default=-1) + 1)
    return [found[rank] for rank in sorted(found)]


def _require_processes(folder: Path, found: Mapping[int, object], count: int) -> None:
    if missing := [str(rank) for rank in range(count) if rank not in found]:
        raise UserError(
            f"{folder} lacks the *_optim_states.pt of {count} processes' numbers "
            f"{', '.join(missing)}.\n  Fix: copy all files of the checkpoint."
        )


def _trained(folder: Path, shapes: Any, optimizers: Sequence[Any]) -> dict[str, torch.Tensor]:
    """Return the trained weights in fp32.

    Args:
        shapes: Of each group, the weights' shapes in the order of training.
        optimizers: Each process's state.
    """
    try:
        count = optimizers[0]["partition_count"]
        count = max(count) if isinstance(count, list) else count
        _require_processes(folder, dict.fromkeys(range(len(optimizers))), count)
        if "fp32_flat_groups" in optimizers[0]:
            named = {name: shape for group in shapes for name, shape in group.items()}
            flat = [torch.cat(each["fp32_flat_groups"]) for each in optimizers]
            return dict(_cut_each(named, flat))
        groups = zip(*(each["single_partition_of_fp32_groups"] for each in optimizers), strict=True)
        vectors = [torch.cat(parts) for parts in groups]
        paddings = optimizers[0].get("param_alignment_paddings") or [[0] * len(s) for s in shapes]
        found: dict[str, torch.Tensor] = {}
        for group, vector, padding in zip(shapes, vectors, paddings, strict=True):
            found.update(_cut_whole(group, vector, padding, 2 * len(optimizers)))
        return found
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{folder}: its files do not belong together, or are of an unknown DeepSpeed: "
            f"{type(error).__name__} {error}.\n  Fix: copy all files of one checkpoint."
        ) from error


def _cut_whole(
    shapes: Mapping[str, torch.Size], vector: torch.Tensor, paddings: Sequence[int], alignment: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights that lie one after the other; at most an alignment is left over.

    Raises:
        ValueError: There are too few or too many values.
    """
    begin = 0
    for (name, shape), padding in zip(shapes.items(), paddings, strict=True):
        yield name, vector[begin : begin + shape.numel()].view(shape)
        begin += shape.numel() + padding
    if -(-begin // alignment) != -(-len(vector) // alignment):
        raise ValueError(f"{len(vector)} values for {begin}")


def _cut_each(
    shapes: Mapping[str, torch.Size], flat: Sequence[torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of which each process has a part, the last one's filled up.

    Raises:
        ValueError: There are too few or too many values.
    """
    begin = 0
    for name, shape in shapes.items():
        size = -(-shape.numel() // len(flat))
        whole = torch.cat([part[begin : begin + size] for part in flat])
        yield name, whole[: shape.numel()].view(shape)
        begin += size
    if {len(part) for part in flat} != {begin}:
        raise ValueError(f"{len(flat[0])} values for {begin}")
