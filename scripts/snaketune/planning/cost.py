"""How long a stage will take and what it needs, and on what that is based."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaketune.core.machine import gpus
from snaketune.planning.job import Job, PreviousResult
from snaketune.planning.runs import Run
from snaketune.planning.sizes import checkpoint_bytes, size_of, training_memory, weights_bytes

PACE = (
    *("method.name", "method.quantization", "train.deepspeed", "train.gradient_checkpointing"),
    *("train.batch_size", "max_length", "pack", "train.precision", "train.optimizer"),
    *("train.attention", "train.compile", "train.processes", "method.r", "method.dora"),
    *("method.target_modules", "method.modules_to_save"),
)
"""What decides the pace and the memory of a training, the most important first."""

_FETCHED = ("fetch_base", "fetch_dataset")
"""Stages whose time depends on what is fetched, so that another one's tells nothing."""

_OF_BASE_SIZE = ("merge", "split", "export_gguf")
"""Stages that write about as many bytes as the base model has."""


@dataclass(frozen=True)
class Cost:
    """An estimate; what is None is unknown.

    Attributes:
        basis: What the time is taken from, in words; where it is unknown, why.
        memory: Bytes at the peak.
        disk: Bytes that are written and stay.
    """

    seconds: float | None = None
    basis: str = ""
    memory: int | None = None
    disk: int | None = None


@dataclass(frozen=True)
class PendingTraining:
    """A training that will run.

    Attributes:
        settings: By dotted key.
        begins: The iteration to go on from; 0 is the start.
        iterations, tokens: Of the whole run; None while its data is not prepared.
        longest: Tokens of the largest pack.
        kept: Checkpoints that it finds.
    """

    name: str
    base_id: str
    settings: Mapping[str, Any]
    begins: int
    iterations: int | None
    tokens: int | None
    longest: int
    kept: int

    @property
    def base(self) -> Path:
        """The base model's folder."""
        return Path("store/models") / self.base_id


def of_stage(job: Job, base: Path | None) -> Cost:
    """Return what a stage takes, as it took when it last ran, here or for something alike.

    Args:
        base: The base model's folder, if the stage is an experiment's.
    """
    past = _most_alike(job)
    disk = size_of(Path(past.path)) if past else None
    if disk is None and base and job.rule in _OF_BASE_SIZE:
        disk = weights_bytes(base)
    if past is None or past.seconds is None:
        return Cost(basis="never run here", disk=disk)
    same = past.path in job.output
    return Cost(past.seconds, "last time" if same else _whose(past.path), disk=disk)


def of_training(
    ahead: PendingTraining, runs: Iterable[Run], past: Sequence[PreviousResult]
) -> Cost:
    """Return what a training takes, by the pace of the earlier run that is most alike.

    Args:
        past: Results of the stage: its whole time has what that of the iterations has not.
    """
    run = _most_alike_run(ahead, runs)
    others = [] if run is None else [k for k in PACE if run.settings.get(k) != ahead.settings[k]]
    exact = run if run and not others else None
    memory = exact.peak if exact else training_memory(ahead.base, ahead.settings, ahead.longest)
    each = exact.checkpoint if exact else checkpoint_bytes(ahead.base, ahead.settings)
    disk = each * _checkpoints(ahead) if each else None
    if run is None:
        return Cost(None, "never trained here", memory, disk)
    return Cost(_seconds(ahead, run, past), _basis(ahead, run, others), memory, disk)


def _checkpoints(ahead: PendingTraining) -> int:
    """Return how many checkpoints there will be more than now."""
    keep = ahead.settings["train.keep"] + ahead.settings["train.keep_best"]
    more = max(0, keep - ahead.kept)
    if ahead.iterations is None:
        return more
    return min(
        more, math.ceil((ahead.iterations - ahead.begins) / ahead.settings["train.save_every"])
    )


def _most_alike(job: Job) -> PreviousResult | None:
    """Return the same result as it was, else the newest of those with the most input in common."""
    same = [past for past in job.past if past.path in job.output]
    others = [] if job.rule in _FETCHED else [past for past in job.past if past.seconds is not None]
    own = set(job.input)
    newest = max(others, key=lambda past: (len(past.inputs & own), past.ended), default=None)
    return same[0] if same else newest


def _whose(path: str) -> str:
    parts = Path(path).parts
    return parts[1] if parts[0] == "experiments" else "as other data took"


def _most_alike_run(ahead: PendingTraining, runs: Iterable[Run]) -> Run | None:
    device = "gpu" if gpus() else "cpu"
    known = [run for run in runs if run.base_id == ahead.base_id and run.device == device]

    def likeness(run: Run) -> tuple[Any, ...]:
        equal = tuple(run.settings.get(key) == ahead.settings[key] for key in PACE)
        return all(equal), run.name == ahead.name, equal, run.finished, run.iterations

    return max(known, key=likeness, default=None)


def _seconds(ahead: PendingTraining, run: Run, past: Sequence[PreviousResult]) -> float | None:
    """Return the time by tokens: packs hold other numbers of them, and so do iterations."""
    if ahead.iterations is None or ahead.tokens is None or not run.tokens:
        return None
    whole = next((p.seconds for p in past if Path(p.path).parent == run.folder), None)
    besides = max(0.0, whole - run.seconds) if whole and run.finished else 0.0
    left = (ahead.iterations - ahead.begins) / ahead.iterations
    return left * ahead.tokens * run.seconds / run.tokens + besides


def _basis(ahead: PendingTraining, run: Run, others: Sequence[str]) -> str:
    spent = f"{run.name}: {run.seconds:.3g} s for {run.iterations} iterations"
    if others:
        named = ", ".join(f"{key} {run.settings.get(key)}" for key in others[:2])
        spent += f" with {named}{' and more' if len(others) > 2 else ''}"
    return spent if ahead.iterations else f"{spent}; the data will tell how many there are"
