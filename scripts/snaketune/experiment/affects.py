"""What a setting affects: the marks on the schema's fields, from which every id is derived.

A field is marked in its type: `lr: Weights[float]`. A stage's key (identity.py) is made of the
fields with its mark, so that editing any other field reruns nothing; the plan's reasons and the
comparison of variants follow from the same marks.
"""

from enum import Enum
from functools import cache
from typing import Annotated, TypeGuard, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class Affects(Enum):
    """What changes when a setting changes; a setting may have several marks."""

    BASE = "the base model's files, and all that is made of them"
    DATA = "the processed data, and so the weights"
    WEIGHTS = "the trained weights"
    STOPPING = "the weights where `train.early_stop` is set: it says when to measure"
    RESULT = "which checkpoint of a run is its result: exported again, not trained again"
    COST = "time and memory"
    PROGRESS = "what a run logs, saves and answers on its way"
    DATA_REPORT = "what the data report says of the training"
    EXPORT = "the files of the merged model"
    GGUF = "the GGUF file"
    EVALUATION = "the evaluation report"
    AGENT = "the agent's report"
    NOTHING = "nothing: it is for people"


T = TypeVar("T")

Base = Annotated[T, Affects.BASE]
Data = Annotated[T, Affects.DATA]
Weights = Annotated[T, Affects.WEIGHTS]
RunLength = Annotated[T, Affects.WEIGHTS, Affects.DATA_REPORT]
Progress = Annotated[T, Affects.PROGRESS]
Exported = Annotated[T, Affects.EXPORT]
Evaluated = Annotated[T, Affects.EVALUATION]
OfAgent = Annotated[T, Affects.AGENT]
Nothing = Annotated[T, Affects.NOTHING]


def marks(field: FieldInfo) -> set[Affects]:
    """The marks of one field."""
    return {mark for mark in field.metadata if isinstance(mark, Affects)}


def is_section(annotation: object) -> TypeGuard[type[BaseModel]]:
    """Whether a field holds settings of its own, as `train:` does."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


@cache
def marked(section: type[BaseModel], *wanted: Affects) -> frozenset[str]:
    """The names of a section's fields that have any of these marks."""
    fields = section.model_fields.items()
    return frozenset(name for name, field in fields if marks(field) & {*wanted})


@cache
def affecting(model: type[BaseModel], *wanted: Affects, prefix: str = "") -> frozenset[str]:
    """The settings with any of these marks, by dotted key; lists and unions count as one."""
    found = {f"{prefix}{name}" for name in marked(model, *wanted)}
    for name, field in model.model_fields.items():
        if is_section(section := field.annotation):
            found |= affecting(section, *wanted, prefix=f"{prefix}{name}.")
    return frozenset(found)
