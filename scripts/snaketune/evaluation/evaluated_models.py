"""The models of a report, one in memory after the other: base, kept checkpoints, merged.

A checkpoint is measured as it was trained, not merged: its adapter's weights are put into a base
that is loaded once (for QLoRA a quantised one), those of a full fine-tune into the base itself. The
last of them that merged was made of is thus the adapter's own column.
"""

import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from snaketune.core.errors import UserError
from snaketune.core.layout import RunPaths
from snaketune.core.run_identity import RunIdentity
from snaketune.export.model_folder import require_same_base
from snaketune.export.model_record import ModelRecord
from snaketune.models.adapter import load_trained_weights, make_trainable, needs_autocast
from snaketune.models.checkpoint import load_checkpoint
from snaketune.models.load import device, load_model

log = logging.getLogger(__name__)

Measure = Callable[[str, Any], Any]
"""Takes a column's name and a model in evaluation mode, and returns what was found."""


def measure_each(
    base: Path,
    merged: Path,
    record: ModelRecord,
    checkpoints: Path | None,
    dtype: torch.dtype,
    measure: Measure,
) -> dict[str, Any]:
    """Return what is measured of each model by its name: base, iter_N in order, merged.

    Args:
        base: The base model's folder.
        merged: The merged model's folder.
        checkpoints: The training's folder; None to leave its checkpoints out.
        dtype: Of weights and arithmetic.

    Raises:
        UserError: The model was trained on another base.
    """
    require_same_base(base, record, merged)
    if checkpoints:
        found = _base_and_checkpoints(base, record, checkpoints, dtype, measure)
    else:
        found = {"base": measure("base", load_model(base, dtype, device()))}
    gc.collect()  # a model with an adapter holds itself
    return found | {"merged": measure("merged", load_model(merged, dtype, device()))}


def columns(names: Iterable[str], last: int) -> list[dict[str, Any]]:
    """Return `name` and `iteration` of what `measure_each` measured.

    Args:
        last: The iteration that the merged model is of.
    """
    fixed = {"base": 0, "merged": last}
    return [
        {"name": name, "iteration": fixed[name] if name in fixed else int(name[len("iter_") :])}
        for name in names
    ]


def _base_and_checkpoints(
    base: Path, record: ModelRecord, folder: Path, dtype: torch.dtype, measure: Measure
) -> dict[str, Any]:
    method = record.method
    model: Any = load_model(base, dtype, device())
    found = {"base": measure("base", model)}
    if method.name == "qlora":
        del model
        model = load_model(base, dtype, device(), method.quantization)
    if method.name != "full":
        model = make_trainable(model, method, seed=0).eval()
    mixed = method.name != "full" and needs_autocast(method) and dtype != torch.float32
    for iteration, weights in _trained(folder, record):
        load_trained_weights(model, weights)
        name = f"iter_{iteration}"
        with torch.autocast(device().type, dtype) if mixed else nullcontext():
            found[name] = measure(name, model)
    return found


def _trained(folder: Path, record: ModelRecord) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
    """Yield iteration and weights of every intact checkpoint of a training, in order."""
    # last.pth is there even where its iter_N.pth was deleted
    files = {record.iteration: folder / "last.pth"} | RunPaths(folder).kept()
    for iteration, file in sorted(files.items()):
        try:
            state = load_checkpoint(file)
        except UserError as error:
            log.warning("left out of the report: %s", str(error).splitlines()[0])
            continue
        if state["iteration"] != iteration:
            continue  # merged is of an earlier checkpoint, and its file is gone
        if RunIdentity.model_validate(state["about"]) != record.identity:
            log.warning("left out of the report: %s is of another training", file)
            continue
        yield iteration, state["weights"]
