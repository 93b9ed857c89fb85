"""What base and tuned model did as agents: experiments/X/agent/report.json as a typed record.

No torch and no Lagent here: tracking and the demo read it.
"""

from pydantic import BaseModel, ConfigDict

from snaketune.client.answer import Step
from snaketune.core.records import Record
from snaketune.experiment.schema import AgentConfig
from snaketune.scoring.estimate import Estimate

AgentVerdict = dict[str, bool | int | float]
"""Of one question: the metrics (`agent.agent_metrics`) that apply to it, by name."""


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True)


class AgentIds(_Row):
    """What the two models were made of."""

    base: str
    train: str


class BaseAndTuned(_Row):
    """An estimate of each model."""

    base: Estimate
    tuned: Estimate


class AgentFigure(BaseAndTuned):
    """A metric over all questions.

    Attributes:
        wanted: The best value, None for a mean without better and worse.
        differs: The intervals of the two models do not overlap.
    """

    wanted: float | None
    differs: bool


class AgentTranscript(_Row):
    """What one model did with a question; `finished` is False when it ran out of turns."""

    text: str
    finished: bool
    steps: list[Step]
    verdict: AgentVerdict


class AnsweredQuestion(_Row):
    """A question of the file, with what both models did."""

    question: str
    tool: str | None
    accept: list[str] = []
    base: AgentTranscript
    tuned: AgentTranscript


class AgentRecord(Record):
    """The content of agent/report.json.

    Attributes:
        models: The ids of `base` and `tuned` at the model server.
        system: The system message, which describes the tools.
        right_by_tool: The share of right answers, by the tool a question requires or `none`.
    """

    experiment: str
    study: str
    description: str = ""
    ids: AgentIds
    models: dict[str, str]
    agent: AgentConfig
    system: str
    figures: dict[str, AgentFigure]
    right_by_tool: dict[str, BaseAndTuned]
    questions: list[AnsweredQuestion]
