"""Identify the run in a checkpoints folder and its progress. Imports no torch: a plan is quick."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer

from snaketune.core.files import sha256
from snaketune.core.layout import BasePaths, DataPaths, RunPaths
from snaketune.core.records import Record


class RunIdentity(Record):
    """run.json: what must be equal for a checkpoint to be resumed.

    A trained run has `data_sha256`, one that starts from another run `start_sha256` too; a
    converted one has `source_sha256`, of the imported checkpoint.
    """

    train_id: str
    base_sha256: str | None = None
    data_sha256: str | None = None
    source_sha256: str | None = None
    start_sha256: str | None = None

    @model_serializer(mode="wrap")
    def _omit_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}

    @classmethod
    def of_training(cls, train_id: str, base: Path, data: Path, start: Path | None) -> Self:
        """Read the digests that a training depends on.

        Args:
            base: The base model's folder, with provenance.json.
            data: The processed data's folder, with data.json.
            start: The checkpoint of another experiment whose weights are the first.
        """
        started_from = RunIdentity.read(RunPaths(start.parent).identity) if start else None
        return cls(
            train_id=train_id,
            base_sha256=sha256(BasePaths(base).provenance),
            data_sha256=sha256(DataPaths(data).record),
            start_sha256=started_from.digest if started_from else None,
        )

    @property
    def identity(self) -> "RunIdentity":
        """Only these values, of a record that has others too."""
        return RunIdentity.model_validate(self.model_dump(include=set(RunIdentity.model_fields)))

    @property
    def digest(self) -> str:
        """SHA-256 of run.json without its `record_version`.

        Releases before 0.2 hashed a run.json that had no version yet. Hashing the same bytes lets
        the runs that start from such a run be resumed, whoever wrote its file.
        """
        text = json.dumps(self.model_dump(), indent=2, ensure_ascii=False) + "\n"
        return hashlib.sha256(text.encode()).hexdigest()

    def superseded_in(self, run: RunPaths) -> RunPaths:
        """The folder that keeps this run's files while another run occupies the checkpoints."""
        values = self.model_dump()
        name = "-".join(values[key][:12] for key in sorted(values, reverse=True))
        return RunPaths(run.superseded / name)


@dataclass(frozen=True)
class FolderStatus:
    """What training will find in a checkpoints folder.

    Attributes:
        resumable: Where this run's checkpoints are: the folder itself, or one in superseded/, from
            where they will be restored; None if there are none.
        supersedes: Where the files of another run, now in the folder, will be kept; None if it
            holds no other run.
        iteration: Of this run's newest checkpoint, 0 if there is none.
    """

    resumable: RunPaths | None = None
    supersedes: RunPaths | None = None
    iteration: int = 0


def folder_status(run: RunPaths, identity: RunIdentity) -> FolderStatus:
    """Look for a run's checkpoints by their names, without reading them."""
    current = RunIdentity.read(run.identity) if run.identity.exists() else None
    supersedes = current.superseded_in(run) if current and current != identity else None
    # superseded/ first: a crash while a run was restored leaves its newest files there
    candidates = [identity.superseded_in(run)] + ([run] if current == identity else [])
    resumable = next((candidate for candidate in candidates if candidate.kept()), None)
    newest = max(resumable.kept()) if resumable else 0
    return FolderStatus(resumable, supersedes, newest)
