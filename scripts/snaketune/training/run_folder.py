"""The checkpoints folder of a run: what survives a crash, and what must never be mixed up.

checkpoints/
    run.json         which run this is: train_id and digests of base and data
    resolved.yaml    the full configuration it is trained with
    iter_N.pth       the newest `keep` checkpoints
    metrics.jsonl    one line an iteration
    samples.jsonl    one line an answer
    validation.jsonl one line a measurement of the held-out loss
    system.jsonl     one line every 10 s on what the machine did
    train.log        what was told, over all interruptions
    last.pth         the newest of a finished run (a second name, not a second copy)
    train.json       the figures of a finished run; written last
    superseded/ID/   the same files of runs with other settings; they come back if the id does
"""

import logging
import time
from pathlib import Path
from typing import Any

from snaketune.core.files import link_or_copy, read_json, read_jsonl, write_json, write_jsonl
from snaketune.core.run_files import kept_checkpoints, superseded
from snaketune.experiment.schema import Method
from snaketune.models.checkpoint import damage, load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)


class RunFolder:
    """The checkpoints folder, opened for one run.

    Args:
        path: experiments/X/checkpoints.
        identity: What must be equal for checkpoints to be resumed: train_id and digests.
        keep: How many of the newest checkpoints stay.
    """

    def __init__(self, path: Path, identity: dict[str, str], keep: int) -> None:
        self.path, self.identity, self.keep = path, identity, keep
        self.metrics, self.samples = path / "metrics.jsonl", path / "samples.jsonl"
        self.validation = path / "validation.jsonl"

    def about(
        self, name: str, base: Path, precision: str, method: Method, template: dict[str, Any]
    ) -> dict[str, Any]:
        """Return what a checkpoint of this run tells of itself, beside its state.

        Args:
            precision: Of the training's arithmetic, as torch calls it: `bfloat16`.
            template: The chat template that is learned, as data.json tells it.
        """
        return self.identity | {
            "name": name,
            "base_id": base.name,
            "precision": precision,
            "method": method.model_dump(),
            "template": template,
        }

    def open(self) -> dict[str, Any] | None:
        """Set other runs aside, and return the newest intact checkpoint of this one, if any."""
        self.path.mkdir(parents=True, exist_ok=True)
        for half_written in self.path.glob(".*.tmp"):
            half_written.unlink()
        marker = self.path / "run.json"
        if marker.exists() and read_json(marker) != self.identity:
            self._supersede(read_json(marker))
        elif not marker.exists() and self.checkpoints():
            self._supersede({"train_id": f"{time.time_ns():x}"[-12:]})
        self._bring_back()
        write_json(marker, self.identity)
        state = self.newest_intact()
        reached = state["resume_from"] if state else -1
        for file in (self.metrics, self.samples, self.validation, self.path / "system.jsonl"):
            kept = [row for row in read_jsonl(file) if row["iteration"] <= reached]
            write_jsonl(file, kept)
        if state:
            log.info("going on from iteration %d", reached)
        return state

    def checkpoints(self) -> dict[int, Path]:
        """Return the checkpoints by iteration, the newest first."""
        return dict(sorted(kept_checkpoints(self.path).items(), reverse=True))

    def save(self, iteration: int, state: dict[str, Any], best: int | None = None) -> Path:
        """Write iter_N.pth, then delete what is older than the newest `keep`, but not the best."""
        path = self.path / f"iter_{iteration}.pth"
        save_checkpoint(path, state)
        for number, old in list(self.checkpoints().items())[self.keep :]:
            if number != best:
                old.unlink()
        return path

    def finish(self, iteration: int, figures: dict[str, Any]) -> None:
        """Name the last checkpoint last.pth and write train.json: the run is complete."""
        link_or_copy(self.path / f"iter_{iteration}.pth", self.path / "last.pth")
        write_json(self.path / "train.json", figures)

    def newest_intact(self) -> dict[str, Any] | None:
        """Return the newest checkpoint that is whole, renaming damaged ones out of the way."""
        for path in self.checkpoints().values():
            reason = damage(path)
            if reason is None:
                return load_checkpoint(path)
            log.warning("%s is damaged (%s); using the one before it", path, reason)
            path.rename(path.with_suffix(".damaged"))
        return None

    def _supersede(self, identity: dict[str, str]) -> None:
        """Move a run aside, run.json last: until then it is still known whose files these are."""
        aside = superseded(self.path, identity)
        aside.mkdir(parents=True, exist_ok=True)
        log.warning("the settings changed: the earlier run is kept in %s", aside)
        files = [file for file in self.path.iterdir() if file.is_file() and file.name[0] != "."]
        for file in sorted(files, key=lambda file: file.name == "run.json"):
            file.rename(aside / file.name)

    def _bring_back(self) -> None:
        """Take this run's files back, run.json first; also those that a crash left aside."""
        aside = superseded(self.path, self.identity)
        if not aside.exists():
            return
        log.info("these settings were trained before: taking %s back", aside)
        for file in sorted(aside.iterdir(), key=lambda file: file.name != "run.json"):
            file.rename(self.path / file.name)
        aside.rmdir()
