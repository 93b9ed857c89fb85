"""The checkpoints folder of a run while it trains: what survives a crash, and whose files it holds.

`core/layout.RunPaths` names the files. What a run with other settings left is moved to
superseded/ID/ and restored when those settings come back.
"""

import logging
import time
from pathlib import Path
from typing import Any

from snaketune.core.files import link_or_copy, read_jsonl, write_jsonl
from snaketune.core.layout import RunPaths
from snaketune.core.run_identity import RunIdentity
from snaketune.experiment.schema import Method
from snaketune.models.checkpoint import (
    CheckpointState,
    damage,
    load_checkpoint,
    save_checkpoint,
)
from snaketune.models.checkpoint_about import CheckpointAbout
from snaketune.training.result import best_iteration, heldout_losses
from snaketune.training.train_record import TrainRecord

log = logging.getLogger(__name__)


class RunFolder:
    """The checkpoints folder, opened for one run.

    Args:
        folder: experiments/X/checkpoints.
        keep: How many of the newest checkpoints stay.
        keep_best: Whether the one with the lowest held-out loss stays too.
    """

    def __init__(
        self, folder: Path, identity: RunIdentity, keep: int, keep_best: bool = False
    ) -> None:
        self.paths, self.identity = RunPaths(folder), identity
        self.keep, self.keep_best = keep, keep_best

    def about(
        self, name: str, base: Path, precision: str, method: Method, template: dict[str, Any]
    ) -> CheckpointAbout:
        """Describe this run's checkpoints.

        Args:
            precision: Of the training's arithmetic, as torch calls it: `bfloat16`.
            template: The chat template that is learned, as data.json has it.
        """
        return CheckpointAbout(
            **self.identity.model_dump(),
            name=name,
            base_id=base.name,
            precision=precision,
            method=method,
            template=template,
        )

    def claim(self) -> None:
        """Make the folder this run's: set another one aside, and restore this one's files.

        run.json names the owner of the folder's files at any time, also after a kill in between.
        """
        self.paths.folder.mkdir(parents=True, exist_ok=True)
        for half_written in self.paths.folder.glob(".*.tmp"):
            half_written.unlink()
        marker = self.paths.identity
        owner = RunIdentity.read(marker) if marker.exists() else None
        if owner is None and self.checkpoints():
            owner = RunIdentity(train_id=f"{time.time_ns():x}"[-12:])  # unknown: a name of its own
        if owner and owner != self.identity:
            self._supersede(owner)
        self._restore()
        # an equal file of an earlier release stays as it is
        if not marker.exists():
            self.identity.write(marker)

    def finished(self) -> TrainRecord | None:
        """The record of this run if it was trained to its end and its last checkpoint is whole."""
        if not self.paths.finished.exists():
            return None
        record = TrainRecord.read(self.paths.finished)
        whole = damage(self.paths.checkpoint(record.iterations)) is None
        return record if whole and record.identity == self.identity else None

    def resume(self) -> CheckpointState | None:
        """Load the newest intact checkpoint, None if none, and cut the files back to it."""
        self.paths.finished.unlink(missing_ok=True)
        state = self.newest_intact()
        reached = state["resume_from"] if state else -1
        self._cut_back(reached)
        if state:
            log.info("resuming from iteration %d", reached)
        return state

    def checkpoints(self) -> dict[int, Path]:
        """The checkpoints by iteration, the newest first."""
        return dict(sorted(self.paths.kept().items(), reverse=True))

    def save(self, iteration: int, state: CheckpointState) -> None:
        """Write iter_N.pth, then delete all but the newest `keep` and the best.

        In this order a full disk or a crash costs the new checkpoint, never the last good one.
        """
        path = self.paths.checkpoint(iteration)
        save_checkpoint(path, state)
        best = best_iteration(heldout_losses(self.paths)) if self.keep_best else None
        for number, old in list(self.checkpoints().items())[self.keep :]:
            if number != best:
                old.unlink()

    def finish(self, record: TrainRecord) -> None:
        """Name the result last.pth and write train.json, last: then the run is complete.

        Snakemake deletes last.pth and train.json before it runs the job again, as for another
        train.keep_best. finished.json has the same figures under a name it does not know.
        """
        link_or_copy(self.paths.checkpoint(record.exported_iteration), self.paths.last)
        record.write(self.paths.finished)
        record.write(self.paths.record)

    def newest_intact(self) -> CheckpointState | None:
        """Load the newest checkpoint that is whole, renaming damaged ones; None if none is."""
        for path in self.checkpoints().values():
            reason = damage(path)
            if reason is None:
                return load_checkpoint(path)
            log.warning("%s is damaged (%s); using the one before it", path, reason)
            path.rename(path.with_suffix(".damaged"))
        return None

    def _cut_back(self, reached: int) -> None:
        """Drop the rows after the iteration to resume from; these iterations are repeated."""
        paths = self.paths
        for file in (paths.metrics, paths.samples, paths.validation, paths.system):
            write_jsonl(file, [row for row in read_jsonl(file) if row["iteration"] <= reached])

    def _supersede(self, owner: RunIdentity) -> None:
        """Move another run's files away, run.json last: until then their owner is known."""
        aside, marker = owner.superseded_in(self.paths).folder, self.paths.identity
        aside.mkdir(parents=True, exist_ok=True)
        log.warning("the settings changed; the files of the earlier run are kept in %s", aside)
        files = [f for f in self.paths.folder.iterdir() if f.is_file() and f.name[0] != "."]
        for file in sorted(files, key=lambda file: file == marker):
            file.rename(aside / file.name)

    def _restore(self) -> None:
        """Take this run's files back, run.json first; also those that a crash left behind."""
        kept = self.identity.superseded_in(self.paths)
        if not kept.folder.exists():
            return
        log.info("these settings were trained before; restoring %s", kept.folder)
        for file in sorted(kept.folder.iterdir(), key=lambda file: file != kept.identity):
            file.rename(self.paths.folder / file.name)
        kept.folder.rmdir()
