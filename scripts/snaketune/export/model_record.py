"""What an adapter or a merged model says about itself: snaketune.json. Imports no torch."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from snaketune.core.layout import MODEL_RECORD
from snaketune.models.checkpoint_about import CheckpointAbout
from snaketune.training.train_record import TrainRecord

BaseForm = Literal["original", "dequantized"]
"""The base that a QLoRA adapter is merged into: its own weights, or those that training saw."""


class Deviation(BaseModel):
    """How far a model is from the model as it was trained.

    Attributes:
        heldout_loss: Of this model, in nats per supervised token; None without held-out rows.
        difference: Root mean square difference of the logits, as a share of their standard
            deviation.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    heldout_loss: float | None
    difference: float


class MergeCheck(BaseModel):
    """The comparison of a merged model with the base and adapter it was made of.

    The last three describe the choice of a base for QLoRA; else they are None and not written.

    Attributes:
        dtype: Of most merged weights, as torch calls it: `bfloat16`.
        difference: As in `Deviation`, and the `bound` it had to keep.
        equal_tokens: Share of the answers' tokens that both models choose greedily, and the
            smallest share that is accepted.
        bases: By `original`, `dequantized` and `as_trained`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    merged_into: BaseForm | None = None
    quantization: str | None = None
    bases: dict[str, Deviation] | None = None
    dtype: str
    difference: float
    bound: float
    equal_tokens: float
    equal_tokens_bound: float

    @model_serializer(mode="wrap")
    def _omit_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


class ModelRecord(CheckpointAbout):
    """Which run and iteration a model was made of.

    Attributes:
        figures: Of the run, if this is its result. An earlier checkpoint has none.
        merge: None for an adapter.
    """

    iteration: int
    figures: TrainRecord | None = None
    merge: MergeCheck | None = None

    @field_validator("figures", mode="before")
    @classmethod
    def _read_empty_as_none(cls, figures: object) -> object:
        return figures or None  # releases before 0.2 wrote {}

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read the record in the folder of an adapter or a merged model."""
        return cls.read(folder / MODEL_RECORD, f"rm -r {folder} && snakemake {folder}")
