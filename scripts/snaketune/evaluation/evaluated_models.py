"""The evaluated models, one in memory at a time: base, kept checkpoints, merged.

A checkpoint is measured as it was trained, not merged: its adapter's weights are put into a base
that is loaded once (for QLoRA a quantised one), those of a full fine-tune into the base itself.
The checkpoint that the merged model was made of thus shows the adapter without the merge.
"""

import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch

from snaketune.core.errors import UserError
from snaketune.core.layout import RunPaths, iteration_name, iteration_number
from snaketune.core.run_identity import RunIdentity
from snaketune.evaluation.evaluation_record import BASE, MERGED, EvaluatedModel
from snaketune.export.model_folder import require_same_base
from snaketune.export.model_record import ModelRecord
from snaketune.models.checkpoint import load_checkpoint
from snaketune.models.load_model import device, load_model
from snaketune.models.trainable import load_trained_weights, make_trainable, needs_autocast

log = logging.getLogger(__name__)

T = TypeVar("T")


def measure_each(
    base: Path,
    merged: Path,
    record: ModelRecord,
    checkpoints: Path | None,
    dtype: torch.dtype,
    measure: Callable[[str, Any], T],
) -> dict[str, T]:
    """Measure every model; results by name: base, iter_N in order, merged.

    Args:
        base: The base model's folder.
        merged: The merged model's folder.
        checkpoints: The training's folder; None to leave its checkpoints out.
        dtype: Of weights and arithmetic.
        measure: Takes the name and the model in evaluation mode.

    Raises:
        UserError: The model was trained on another base.
    """
    require_same_base(base, record, merged)
    if checkpoints:
        results = _base_and_checkpoints(base, record, checkpoints, dtype, measure)
    else:
        results = {BASE: measure(BASE, load_model(base, dtype, device()))}
    # PEFT's model and its base refer to each other: only the collector frees them before the next
    gc.collect()
    return results | {MERGED: measure(MERGED, load_model(merged, dtype, device()))}


def columns(names: Iterable[str], merged_iteration: int) -> list[EvaluatedModel]:
    """The report's columns for what `measure_each` measured."""
    iterations = {MERGED: merged_iteration}
    return [
        EvaluatedModel(name=name, iteration=iterations.get(name) or iteration_number(name) or 0)
        for name in names
    ]


def _base_and_checkpoints(
    base: Path,
    record: ModelRecord,
    folder: Path,
    dtype: torch.dtype,
    measure: Callable[[str, Any], T],
) -> dict[str, T]:
    method = record.method
    model: Any = load_model(base, dtype, device())
    results = {BASE: measure(BASE, model)}
    if method.name == "qlora":
        del model
        model = load_model(base, dtype, device(), method.quantization)
    if method.name != "full":
        model = make_trainable(model, method, seed=0).eval()
    mixed = method.name != "full" and needs_autocast(method) and dtype != torch.float32
    for iteration, weights in _trained(folder, record):
        load_trained_weights(model, weights)
        name = iteration_name(iteration)
        with torch.autocast(device().type, dtype) if mixed else nullcontext():
            results[name] = measure(name, model)
    return results


def _trained(folder: Path, record: ModelRecord) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
    """Yield iteration and weights of every intact checkpoint of a training, in order."""
    run = RunPaths(folder)
    # last.pth outlives the iter_N.pth that it is a second name of
    files = {record.iteration: run.last} | run.kept()
    for iteration, file in sorted(files.items()):
        try:
            state = load_checkpoint(file)
        except UserError as error:
            log.warning("left out of the report: %s", str(error).splitlines()[0])
            continue
        if state["iteration"] != iteration:
            continue  # the merged model is of an earlier checkpoint, whose file was deleted
        if RunIdentity.model_validate(state["about"]) != record.identity:
            log.warning("left out of the report: %s is a checkpoint of another training", file)
            continue
        yield iteration, state["weights"]
