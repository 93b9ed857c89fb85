"""The plan: every stage that will run, why, and what it takes; and what is used as it is."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from snaketune.core.files import read_json
from snaketune.core.layout import RunPaths
from snaketune.core.machine import gpus
from snaketune.core.run_identity import FolderStatus, RunIdentity, folder_status
from snaketune.experiment import Experiment, Studies, base_id, data_id, train_id
from snaketune.experiment.resolved import resolved_values
from snaketune.planning.cost import Cost, PendingTraining, of_stage, of_training
from snaketune.planning.job import Job
from snaketune.planning.reasons import Changes, reasons
from snaketune.planning.runs import Run, changes, last_run, of_data, past_runs, settings_of

_RESULTS = {
    "fetch_base": "base model",
    "fetch_dataset": "data set",
    "prepare_data": "data",
    "resolve": "resolved.yaml",
    "train": "training",
    "convert_xtuner": "converted checkpoint",
    "export_adapter": "adapter",
    "merge": "merged model",
    "evaluate": "evaluation",
    "agent": "agent's report",
}
"""What is used of a stage that does not run."""


@dataclass(frozen=True)
class Line:
    """A stage that will run.

    Attributes:
        experiment: None for a stage that experiments share.
        reasons: Why it runs; empty if it never ran before.
        note: What training finds in its folder, in words.
    """

    stage: str
    rule: str
    experiment: str | None
    output: Sequence[str]
    reasons: Sequence[str]
    cost: Cost
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What Snakemake will do for some targets.

    Attributes:
        experiments: That they are of, in the order of their files.
        reused: What is there and used, with the experiment it belongs to, None if to several.
        free_bytes: On the disk here.
    """

    targets: Sequence[str]
    experiments: Sequence[str]
    lines: Sequence[Line]
    reused: Sequence[tuple[str | None, str]]
    free_bytes: int

    @property
    def seconds(self) -> float:
        """The sum of the times that are known."""
        return sum(line.cost.seconds or 0.0 for line in self.lines)

    @property
    def unknown(self) -> list[str]:
        """The stages whose time is not known."""
        return [line.stage for line in self.lines if line.cost.seconds is None]

    @property
    def memory(self) -> int:
        """The most bytes of memory that a stage is known to need."""
        return max((line.cost.memory or 0 for line in self.lines), default=0)

    @property
    def disk(self) -> int:
        """The sum of the bytes that are known."""
        return sum(line.cost.disk or 0 for line in self.lines)


def make_plan(targets: Sequence[str], jobs: Sequence[Job], studies: Studies) -> Plan:
    """Put the jobs of a dry run in words.

    Args:
        jobs: In an order in which they could run.
    """
    planner = _Planner(jobs, studies)
    lines = [planner.line(job) for job in jobs if job.runs]
    reused = [
        (planner.owner(job), _RESULTS.get(job.rule, job.stage)) for job in jobs if not job.runs
    ]
    names = [each.name for each in planner.planned]
    free = shutil.disk_usage(".").free
    return Plan(targets, names, lines, list(dict.fromkeys(reused)), free)


def to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values, with units in the names."""
    stages = [
        {
            "rule": line.rule,
            "experiment": line.experiment,
            "output": list(line.output),
            "reasons": list(line.reasons),
            "note": line.note,
            "seconds": line.cost.seconds,
            "basis": line.cost.basis,
            "memory_bytes": line.cost.memory,
            "disk_bytes": line.cost.disk,
        }
        for line in plan.lines
    ]
    reused = [{"experiment": experiment, "what": what} for experiment, what in plan.reused]
    return {
        "targets": list(plan.targets),
        "stages": stages,
        "reused": reused,
        "seconds": plan.seconds,
        "memory_bytes": plan.memory,
        "disk_bytes": plan.disk,
        "free_bytes": plan.free_bytes,
    }


class _Planner:
    """Knows the experiments, and what was trained before."""

    def __init__(self, jobs: Sequence[Job], studies: Studies) -> None:
        names = {job.wildcards.get("experiment") for job in jobs}
        self.planned = [each for name, each in studies.experiments.items() if name in names]
        self.runs: Callable[[], list[Run]] = cache(lambda: list(past_runs(Path("experiments"))))

    def users(self, job: Job) -> list[Experiment]:
        """Return the planned experiments that use what a job makes."""
        keys: dict[str, Callable[[Experiment], str]] = {
            "experiment": lambda each: each.name,
            "data_id": data_id,
            "base_id": base_id,
        }
        known = [key for key in keys if key in job.wildcards]
        return [
            each
            for each in self.planned
            if known and all(keys[key](each) == job.wildcards[key] for key in known)
        ]

    def owner(self, job: Job) -> str | None:
        """Return the one planned experiment that uses what a job makes, None if several do."""
        users = self.users(job)
        return users[0].name if len(users) == 1 else None

    def line(self, job: Job) -> Line:
        """Return a job in words."""
        users, base, changed = self.users(job), None, None
        if users and job.rule == "train":
            return self._training(job, users[0])
        if users and "base_id" not in job.wildcards:
            base = Path("store/models") / base_id(users[0])
        if job.rule == "prepare_data":
            found = {key: pair for each in users for key, pair in _changes_of_run(each).items()}
            changed = {key: pair for key, pair in found.items() if of_data(key)}
        return _line(job, self.owner(job), changed, of_stage(job, base))

    def _training(self, job: Job, experiment: Experiment) -> Line:
        found = _folder_status(job, experiment)
        ahead = _ahead(experiment, found)
        if found.resumable == RunPaths(_checkpoints(experiment)):
            job = replace(job, interrupted=True)
        cost = of_training(ahead, self.runs(), job.past)
        note, changed = _note(found, ahead), _changes_of_run(experiment)
        return _line(job, experiment.name, changed, cost, note)


def _line(job: Job, owner: str | None, changed: Changes | None, cost: Cost, note: str = "") -> Line:
    why = reasons(job, changed or None)
    return Line(job.stage, job.rule, owner, job.output, why, cost, note)


def _changes_of_run(experiment: Experiment) -> Changes:
    """Return the settings that changed since an experiment was last trained, as far as told."""
    last = last_run(_checkpoints(experiment))
    if last is None or last[0].train_id == train_id(experiment):
        return {}
    return changes(last[1], settings_of(resolved_values(experiment)))


def _checkpoints(experiment: Experiment) -> Path:
    return Path("experiments") / experiment.name / "checkpoints"


def _folder_status(job: Job, experiment: Experiment) -> FolderStatus:
    """Return what training will find; nothing is known if what it is bound to is made anew."""
    base = Path("store/models") / base_id(experiment)
    data = Path("store/data") / data_id(experiment)
    start = _checkpoints(experiment.start) / "last.pth" if experiment.start else None
    bound = [base / "provenance.json", data / "data.json"]
    bound += [start.with_name("run.json")] if start else []
    if job.after or not all(file.exists() for file in bound):
        return FolderStatus()
    identity = RunIdentity.of_training(train_id(experiment), base, data, start)
    return folder_status(RunPaths(_checkpoints(experiment)), identity)


def _ahead(experiment: Experiment, found: FolderStatus) -> PendingTraining:
    train, file = experiment.config.train, Path("store/data") / data_id(experiment) / "data.json"
    told = read_json(file)["train"] if file.exists() else None
    iterations = tokens = None
    longest = experiment.config.max_length
    if told and told["packs"]:
        epoch, iterations = train.iterations(told["packs"], train.processes or gpus() or 1)
        tokens = round(told["tokens"] * iterations / epoch)
        longest = longest if experiment.config.pack else told["length_quantiles"]["max"]
    return PendingTraining(
        name=experiment.name,
        base_id=base_id(experiment),
        settings=settings_of(resolved_values(experiment)),
        begins=_begins(found.iteration, iterations, train.accumulate),
        iterations=iterations,
        tokens=tokens,
        longest=int(longest),
        kept=len(found.resumable.kept()) if found.resumable else 0,
    )


def _begins(checkpoint: int, iterations: int | None, accumulate: int) -> int:
    """Return the iteration to go on from: the last one up to a checkpoint that ended an update."""
    return checkpoint if checkpoint == iterations else checkpoint - checkpoint % accumulate


def _note(found: FolderStatus, ahead: PendingTraining) -> str:
    """Return in words what training does with the files it finds."""
    told = []
    if found.resumable and found.resumable.folder.parent.name == "superseded":
        told.append("takes its run back from checkpoints/superseded")
    if ahead.iterations and ahead.begins >= ahead.iterations:
        told.append(f"is trained already, to iteration {ahead.begins}")
    elif found.resumable:
        of_all = f" of {ahead.iterations}" if ahead.iterations else ""
        told.append(f"goes on from iteration {ahead.begins}{of_all}")
    if found.supersedes:
        told.append("keeps the earlier run in checkpoints/superseded")
    return "; ".join(told)
