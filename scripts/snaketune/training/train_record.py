"""What a training writes for others to read: train.json and the rows of its JSON Lines files.

Planning, reports and tracking read these, so nothing here imports torch.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from snaketune.core.files import read_jsonl
from snaketune.core.run_identity import RunIdentity


class PeakMemory(BaseModel):
    """Peaks in bytes: resident memory of the process and, on a GPU, what torch had allocated and
    reserved there. The two are None on a CPU, and then left out of files."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    peak_rss_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None

    @classmethod
    def highest(cls, peaks: Iterable["PeakMemory"]) -> "PeakMemory":
        """The highest of each kind; None where none was measured."""
        peaks = list(peaks)
        measured = {
            key: [value for peak in peaks if (value := getattr(peak, key)) is not None]
            for key in PeakMemory.model_fields
        }
        return PeakMemory(**{key: max(values, default=None) for key, values in measured.items()})

    @property
    def peak_memory_bytes(self) -> int:
        """The memory that limits a run: allocated on a GPU, resident without one; 0 if unknown."""
        return self.peak_allocated_bytes or self.peak_rss_bytes or 0

    @property
    def on_gpu(self) -> bool:
        """Whether the peak was measured on a GPU."""
        return bool(self.peak_allocated_bytes)


class RunRow(BaseModel):
    """One line of a JSON Lines file that grows while a run trains."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    iteration: int

    @classmethod
    def read(cls, path: Path) -> list[Self]:
        """Read all rows; [] if there is no file. A last line cut off by a crash is ignored."""
        return [cls.model_validate(row) for row in read_jsonl(path)]

    def append(self, path: Path) -> None:
        """Write the row at the end of a file. It is on its way to the disk when this returns."""
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.model_dump(), ensure_ascii=False) + "\n")


class MetricsRow(RunRow, PeakMemory):
    """metrics.jsonl: one iteration. Tokens are summed over all processes.

    Attributes:
        epoch: Epochs completed after this iteration, as a fraction.
        loss: Mean over the micro-batch's supervised tokens.
        update: The number of the update that follows this micro-batch, None if none does;
            likewise `update_loss`, the mean over all its tokens, and `grad_norm`, before clipping.
        data_seconds: The part of `time_seconds` spent on preparing the batch.
        model_flops_utilisation: Share of the device's matrix rate that was reached.
    """

    epoch: float | None = None
    lr: float
    loss: float
    update: int | None = None
    update_loss: float | None = None
    grad_norm: float | None = None
    tokens: int
    supervised_tokens: int
    time_seconds: float
    data_seconds: float
    tokens_per_second: float
    supervised_tokens_per_second: float | None = None
    model_flops_utilisation: float | None = None

    @model_serializer(mode="wrap")
    def _omit_gpu_without_one(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unset = {key for key in PeakMemory.model_fields if getattr(self, key) is None}
        return {key: value for key, value in serialize(self).items() if key not in unset}


class ValidationRow(RunRow):
    """validation.jsonl: the mean loss over all held-out tokens after an iteration."""

    heldout_loss: float


class SampleRow(RunRow):
    """samples.jsonl: the model's answer to a sample prompt after an iteration, 0 for the base."""

    prompt: str
    answer: str


class TrainRecord(RunIdentity, PeakMemory):
    """train.json: the figures of a finished run; its presence means the run is complete.

    A converted run was trained elsewhere and knows `iterations` and `converted_from` only. What is
    None is left out of the file.

    Attributes:
        iterations: Micro-batches that were trained on.
        result_iteration: Whose checkpoint is last.pth: the last or, with train.keep_best, the best.
        training_seconds: Of all iterations; without samples, checkpoints and loading.
        first_loss, last_loss: Mean losses of the first and the last update.
        heldout_losses: By iteration.
        estimated_peak_bytes: What was expected before the start, to compare with the peak.
        matrix_flops_per_second: Measured in a large matrix product on this device.
        converted_from: The name of the imported checkpoint.
    """

    iterations: int
    result_iteration: int | None = None
    updates: int | None = None
    tokens: int | None = None
    supervised_tokens: int | None = None
    training_seconds: float | None = None
    model_flops_utilisation: float | None = None
    supervised_tokens_per_second: float | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    heldout_losses: dict[int, float] | None = None
    seeds: dict[str, int] | None = None
    processes: int | None = None
    deepspeed: str | None = None
    device: str | None = None
    gradient_checkpointing: bool | None = None
    estimated_peak_bytes: int | None = None
    precision: str | None = None
    precision_reason: str | None = None
    attention: str | None = None
    matrix_flops_per_second: float | None = None
    converted_from: str | None = None
    versions: dict[str, str] | None = None

    @property
    def exported_iteration(self) -> int:
        """The iteration whose weights the adapter and the merged model have."""
        return self.result_iteration or self.iterations
