"""What an evaluation measured: experiments/X/eval/report.json and probes.jsonl as typed records.

No torch here: comparison, tracking and the demo read these.

Several rows have one key for each evaluated model (`base`, `iter_N`, `merged`) beside their own
keys. Those are pydantic's typed extra fields, and `by_model` returns them.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from snaketune.core.files import read_jsonl, write_jsonl
from snaketune.core.records import Record
from snaketune.export.model_record import MergeCheck
from snaketune.scoring.estimate import Estimate
from snaketune.training.train_record import TrainRecord

BASE = "base"
MERGED = "merged"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True)


class _RowByModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class EvaluatedIds(_Row):
    """What the evaluated models were made of."""

    base: str = ""
    data: str = ""
    train: str


class EvaluatedModel(_Row):
    """A column of the report: `base`, `iter_N` or `merged`, and the iteration of its weights."""

    name: str
    iteration: int


class HeldoutLoss(_Row):
    """Mean loss over the supervised tokens of held-out rows, in nats; None without such rows."""

    loss: float | None
    perplexity: float | None
    supervised_tokens: int


class PromptAnswers(_RowByModel):
    """The answer of every model to one prompt."""

    __pydantic_extra__: dict[str, str] = Field(init=False)

    prompt: str

    @property
    def by_model(self) -> dict[str, str]:
        """Answers by the model's name, in the order of evaluation."""
        return self.__pydantic_extra__


class ProbeFigure(_RowByModel):
    """A metric of a probe for every model; `wanted` is the best value, None if there is none."""

    __pydantic_extra__: dict[str, Estimate] = Field(init=False)

    wanted: float | None

    @property
    def by_model(self) -> dict[str, Estimate]:
        """Estimates by the model's name, in the order of evaluation."""
        return self.__pydantic_extra__


class HarnessFigure(_Row):
    """A metric of a task of lm-evaluation-harness; None is what the harness does not report."""

    value: float
    stderr: float | None = None
    n: int | None = None
    higher_is_better: bool | None = None


class BestCheckpoint(_Row):
    """The best kept checkpoint.

    Attributes:
        decided_by: `probes` or `heldout`.
        distance: Mean distance of the probes from what is wanted, 0..1; None without probes.
        close: Checkpoints that no probe shows to be worse.
    """

    name: str
    iteration: int
    decided_by: str
    distance: float | None
    loss: float | None
    close: list[str]


class EarlierValue(_Row):
    """A better value at an earlier iteration."""

    iteration: int
    value: float


class OverfittingSignal(_Row):
    """A figure that is worse from some iteration to the end of training.

    Attributes:
        since: The iteration; `from` in the file, which Python reserves.
        lowest, highest: The figure's range from there on.
        than: The best value before.
    """

    model_config = ConfigDict(frozen=True, validate_by_name=True, serialize_by_alias=True)

    figure: str
    since: int = Field(alias="from")
    lowest: float
    highest: float
    than: EarlierValue


class Overfitting(_Row):
    """Where over-fitting starts, and every signal of it, the earliest first."""

    iteration: int
    signs: list[OverfittingSignal]


class CheckpointVerdict(_Row):
    """Which checkpoint is best and where over-fitting starts.

    Attributes:
        loss_margin: What the held-out loss may rise by chance, in nats.
        result: The name of the checkpoint that the merged model was made of, if it is measured.
        sentence: All of this in words.
    """

    loss_margin: float
    result: str | None
    best: BestCheckpoint | None = None
    overfitting: Overfitting | None = None
    sentence: str


class EvaluationRecord(Record):
    """The content of eval/report.json.

    `heldout_by_source` is by source and model, `lm_eval` by task, metric and model.
    """

    experiment: str
    study: str
    description: str = ""
    ids: EvaluatedIds
    models: list[EvaluatedModel] = Field([])
    merge: MergeCheck | None = None
    training: TrainRecord
    heldout: dict[str, HeldoutLoss]
    heldout_by_source: dict[str, dict[str, HeldoutLoss]] = Field({})
    answers: list[PromptAnswers]
    probes: dict[str, ProbeFigure]
    lm_eval: dict[str, dict[str, dict[str, HarnessFigure]]] = Field({})
    checkpoints: CheckpointVerdict | None = None


class ProbeAnswer(_RowByModel):
    """One model's answer to a question of a probe.

    Beside these it has the metrics of the probe's kind (bool, or a share 0..1), of multiple choice
    also `log_probs`.

    Attributes:
        answer: The generated text, or the likeliest choice.
        repetition: Share of its 4-grams of tokens that occurred before.
        stopped: It ended with an end token, before the limit on its length.
    """

    __pydantic_extra__: dict[str, Any] = Field(init=False)

    answer: str
    right: bool

    def score(self, metric: str) -> bool | float | None:
        """The score by a metric, None if it does not apply to the question."""
        return getattr(self, metric, None)


class ProbedQuestion(_RowByModel):
    """A line of probes.jsonl: a question, what a right answer contains, and all answers."""

    __pydantic_extra__: dict[str, ProbeAnswer] = Field(init=False)

    probe: str
    kind: str = ""
    question: str
    forms: list[str] = Field([])

    @property
    def by_model(self) -> dict[str, ProbeAnswer]:
        """Answers by the model's name, in the order of evaluation."""
        return self.__pydantic_extra__


def read_probed_questions(file: Path) -> list[ProbedQuestion]:
    """The lines of a probes.jsonl, none if the file is missing."""
    return [ProbedQuestion.model_validate(row) for row in read_jsonl(file)]


def write_probed_questions(file: Path, questions: Iterable[ProbedQuestion]) -> None:
    """Write a probes.jsonl atomically."""
    write_jsonl(file, [question.model_dump(mode="json") for question in questions])
