"""The records of the data stage: data.json, and report.json with what became of every row."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from snaketune.core.records import Record
from snaketune.data.data_spec import Packing


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class TemplateRecord(_Part):
    """The chat template that a model is trained with.

    Attributes:
        text: Jinja.
        end_token_ids: The tokens that end an answer.
        system: The system message that all rows have, "" if they differ or have none.
    """

    name: str
    text: str
    sha256: str
    end_token_ids: list[int]
    system: str


class SampleCounts(_Part):
    """Some samples; `length_quantiles` are in tokens, and empty if there is no sample."""

    samples: int
    tokens: int
    supervised_tokens: int
    length_quantiles: dict[str, float]


class PackCounts(SampleCounts):
    """The samples of an epoch and their packs.

    Attributes:
        fill_rate: The share of the packs' positions that hold a token.
        tokens_not_packed: Tokens dropped by `pack: xtuner`.
    """

    packs: int
    fill_rate: float
    tokens_not_packed: int


class DataRecord(Record):
    """data.json: what later stages need to know of processed data.

    Attributes:
        files: The SHA-256 of each file, which shows whether the data changed.
    """

    DIGEST_IS_IDENTITY: ClassVar[bool] = True

    files: dict[str, str]
    max_length: int
    pack: Packing
    template: TemplateRecord
    train: PackCounts
    heldout: SampleCounts


class Affected(_Part):
    """How many samples something happened to, and the places of the first."""

    samples: int
    first: list[str]


class Truncated(Affected):
    """Samples that were too long.

    Attributes:
        answers_cut: Samples that lost supervised tokens.
    """

    tokens_cut: int
    answers_cut: int


class SourceReport(_Part):
    """What became of one source's rows.

    Attributes:
        duplicates: Samples whose tokens equal those of an earlier one.
        samples_per_epoch: With repeats, if the source has a weight above one.
        dropped: By reason.
        unanswered: Conversations that lost what follows their last answer.
    """

    source: str
    format: str
    rows_read: int
    samples_kept: int
    samples_heldout: int
    duplicates: int
    samples_per_epoch: int
    tokens_per_epoch: int
    dropped: dict[str, Affected]
    unanswered: Affected
    truncated: Truncated


class TextPart(_Part):
    """A piece of a sample's text: all of it is learned, or none."""

    text: str
    learned: bool


class ShownSample(_Part):
    """A sample as the report shows it."""

    source: str
    parts: list[TextPart]


class LengthHistogram(_Part):
    """How many samples have a length between two edges, in tokens."""

    edges: list[float]
    samples: list[int]


class DataReport(Record):
    """report.json of processed data; counts are in rows, samples or tokens as named.

    Attributes:
        special_tokens: How often the tokens that begin a text or end an answer occur.
    """

    template: str
    max_length: int
    loss_on: str
    truncation: str
    pack: Packing
    sources: list[SourceReport]
    train: PackCounts
    histogram: LengthHistogram
    special_tokens: dict[str, int]
    heldout: SampleCounts
    samples: list[ShownSample]


class TrainingLength(_Part):
    """How long training on the data takes, on one device."""

    iterations: int
    updates: int
    checkpoints: int


class ExperimentDataReport(DataReport):
    """report.json of an experiment: the report on its data, and how long training will take."""

    training: TrainingLength
