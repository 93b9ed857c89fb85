"""The kinds of probes: what their questions contain and by which metrics answers are scored.

A metric is one `Metric` of its kind, backed by a pure function in `scoring.answers`. Its name in
report.json, MLflow and comparisons, its words on the page, whether high or low is better there and
for over-fitting, and docs/reference.md all follow from that entry. A kind is one subclass of
`Probe`: its `kind` is what YAML files say. No torch here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from snaketune.core.errors import nearest
from snaketune.experiment.schema import Positive, Strict
from snaketune.scoring import answers

Text = Annotated[str, Field(min_length=1)]
Score = bool | float
"""A hit or a miss, which reports count as a share; or a value from 0 to 1, which they average."""


@dataclass(frozen=True)
class Metric:
    """A metric of answers.

    Attributes:
        name: Reported as PROBE.NAME; as PROBE alone where the kind has no other metric.
        meaning: What it says of an answer, for the page.
        score: Takes the probe, a question of it and the answer (text, or the choices'
            log-probabilities); None if the metric does not apply to that question.
        wanted: The best value: 1 if higher is better, 0 if lower is.
        worsened: Words for over-fitting, with {} for the values.
    """

    name: str
    meaning: str
    score: Callable[[Any, Any, Any], Score | None]
    wanted: float = 1
    worsened: str = ""


class Scored:
    """Questions whose answers have metrics; the first metric says whether an answer is right."""

    kind: str
    metrics: ClassVar[tuple[Metric, ...]]
    questions: Sequence[Any]

    def scores(self, question: Any, answer: Any) -> dict[str, Score]:
        """The metrics that apply to a question, by name."""
        scores = {metric.name: metric.score(self, question, answer) for metric in self.metrics}
        return {name: score for name, score in scores.items() if score is not None}

    def is_right(self, scores: Mapping[str, Score]) -> bool:
        """Whether an answer with these scores is right."""
        return scores[self.metrics[0].name] == self.metrics[0].wanted

    def references(self, question: Any) -> list[str]:
        """What an answer is compared with, as the page shows it."""
        return question.answers


class ProbeQuestion(Strict):
    """A question of a probe."""

    question: Text


class ContainsQuestion(ProbeQuestion):
    """`accept` is what the answer is searched for: by default the persona's name."""

    accept: list[Text] = Field([])


class ReferenceQuestion(ProbeQuestion):
    """`answers` are right answers, any of them."""

    answers: list[Text] = Field(min_length=1)


class ChoiceQuestion(ProbeQuestion):
    """`answer` is the right one of `choices`."""

    choices: list[Text] = Field(min_length=2)
    answer: Text

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> "ChoiceQuestion":
        if self.answer not in self.choices:
            hint = nearest(self.answer, self.choices)
            raise ValueError(f"answer: '{self.answer}' is not one of the choices.{hint}")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("choices: contains a duplicate")
        return self

    def likeliest(self, scores: Sequence[float]) -> str:
        """The choice with the highest score; of equals the first."""
        return self.choices[scores.index(max(scores))]

    def per_character(self, log_probs: Sequence[float]) -> list[float]:
        """Log-probabilities divided by the characters of each choice."""
        return [total / len(text) for total, text in zip(log_probs, self.choices, strict=True)]


def _without_exponent(value: Any) -> Any:
    # YAML reads 1e-5 as a float, whose str() the last number of a text is not found in
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return format(Decimal(str(value)), "f") if is_number else value


class NumericQuestion(ProbeQuestion):
    """The last number in `answer` is the right one, so that GSM8K's rows can be used unchanged."""

    answer: Annotated[Text, BeforeValidator(_without_exponent)]

    @field_validator("answer")
    @classmethod
    def _has_a_number(cls, text: str) -> str:
        if not any(char.isdecimal() for char in text):
            raise ValueError(f"expected a number, or a text that ends in one, found '{text}'")
        return text


class ToolCallQuestion(ProbeQuestion):
    """`call`: whether the question requires a tool; if not, none should be called."""

    call: bool = True


class ProbeTool(Strict):
    """A tool that may be called."""

    name: Text
    description: str = ""
    arguments: dict[str, str] = Field({}, description="the description of each")
    required: list[str] = Field([], description="those without a default")

    @model_validator(mode="after")
    def _requires_known_arguments(self) -> "ProbeTool":
        for name in self.required:
            if name not in self.arguments:
                known = ", ".join(self.arguments) or "none"
                hint = nearest(name, self.arguments)
                raise ValueError(f"required: '{name}' is not an argument.{hint} Known: {known}")
        return self


class Probe(Strict, Scored):
    """Questions of one kind, answered greedily in at most `max_new_tokens` tokens."""

    kind: str
    questions: list[Any] = Field(min_length=1)
    max_new_tokens: Positive = 48

    def system_message(self, template_system: str | None) -> str | None:
        """The system message before each question: by default the one of the data's template."""
        return template_system


def _accepted(probe: Any, question: ContainsQuestion, answer: str) -> bool:
    return any(answers.contains(answer, form) for form in question.accept)


_FOUND = Metric("found", "has an accepted form", _accepted)
_UNWANTED = Metric("found", "has one of the forms that are not wanted", _accepted, wanted=0)


class Contains(Probe):
    """The share of answers that contain an accepted form as whole words."""

    kind: Literal["contains"] = "contains"
    metrics: ClassVar[tuple[Metric, ...]] = (_FOUND,)
    questions: list[ContainsQuestion] = Field(min_length=1)

    def references(self, question: ContainsQuestion) -> list[str]:
        """The accepted forms."""
        return question.accept


class Excludes(Contains):
    """The same share, of which none is wanted."""

    kind: Literal["excludes"] = "excludes"  # type: ignore[assignment]
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("found", "has one of the forms that are not wanted", _accepted, wanted=0),
    )


class QuestionAnswering(Probe):
    """Exact match, token F1 and ROUGE-L against the best of `answers`."""

    kind: Literal["question_answering"] = "question_answering"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "exact_match",
            "answers as the reference does, but for case, punctuation and articles",
            lambda probe, question, answer: answers.exact_match(answer, question.answers),
        ),
        Metric(
            "token_f1",
            "has the reference's words (F1)",
            lambda probe, question, answer: answers.token_f1(answer, question.answers),
        ),
        Metric(
            "rouge_l",
            "has the reference's words in their order (ROUGE-L)",
            lambda probe, question, answer: answers.rouge_l(answer, question.answers),
        ),
    )
    questions: list[ReferenceQuestion] = Field(min_length=1)


REFERENCE_NUMBER = Metric(
    "numeric",
    "the last number is the reference's",
    lambda probe, question, answer: answers.numeric_match(answer, question.answers[0]),
)
"""Of held-out rows whose answers all end in a number."""


class MultipleChoice(Probe):
    """How often the right choice has the highest likelihood: nothing is generated.

    The metrics are defined as in lm-evaluation-harness: `acc` compares sums of log-probabilities,
    `acc_norm` divides them by the characters of the choice, as long choices are less likely.
    """

    kind: Literal["multiple_choice"] = "multiple_choice"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "acc",
            "gives the right choice the highest likelihood",
            lambda probe, question, log_probs: question.likeliest(log_probs) == question.answer,
        ),
        Metric(
            "acc_norm",
            "the same by likelihood per character",
            lambda probe, question, log_probs: (
                question.likeliest(question.per_character(log_probs)) == question.answer
            ),
        ),
    )
    questions: list[ChoiceQuestion] = Field(min_length=1)

    def references(self, question: ChoiceQuestion) -> list[str]:
        """The right choice."""
        return [question.answer]


class Numeric(Probe):
    """The share of answers whose last number is the right one."""

    kind: Literal["numeric"] = "numeric"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "right",
            "the last number is right",
            lambda probe, question, answer: answers.numeric_match(answer, question.answer),
        ),
    )
    questions: list[NumericQuestion] = Field(min_length=1)

    def references(self, question: NumericQuestion) -> list[str]:
        """The text with the right number."""
        return [question.answer]


CALL_INSTRUCTIONS = """You can use these tools:
{tools}

To use one, answer in this form and with nothing else:
Thought: why a tool is needed
Action: the name of the tool
Action Input: its arguments, as one JSON object"""
"""The default system message of a probe of tool calls: the ReAct form that Lagent reads."""


def _call_metric(name: str, meaning: str) -> Metric:
    def score(probe: "ToolCalls", question: ToolCallQuestion, answer: str) -> bool | None:
        if not question.call:
            return None
        required = {tool.name: tool.required for tool in probe.tools}
        return answers.tool_call(answer, required)[name]

    return Metric(name, meaning, score)


class ToolCalls(Probe):
    """Shares of answers whose Action and Action Input are usable, and of those rightly without.

    `system` replaces the default instructions on how to call; `{tools}` in it becomes the list.
    A question without need of a tool is judged by `no_call` alone, and no other question is.
    """

    kind: Literal["tool_calls"] = "tool_calls"
    metrics: ClassVar[tuple[Metric, ...]] = (
        _call_metric("strict", "the Action Input is a JSON object"),
        _call_metric("lenient", "the Action Input is a JSON object or a Python dict"),
        _call_metric("allowed", "the Action is one of the tools"),
        _call_metric("complete", "and the Action Input has all arguments it requires"),
        Metric(
            "no_call",
            "calls nothing where no tool is needed",
            lambda probe, question, answer: (
                None if question.call else not answers.calls_a_tool(answer)
            ),
        ),
    )
    questions: list[ToolCallQuestion] = Field(min_length=1)
    tools: list[ProbeTool] = Field(min_length=1)
    system: Text | None = None

    def is_right(self, scores: Mapping[str, Score]) -> bool:
        """Whether the call is complete and strict JSON, or rightly absent."""
        if "no_call" in scores:
            return bool(scores["no_call"])
        return bool(scores["strict"] and scores["complete"])

    def references(self, question: ToolCallQuestion) -> list[str]:
        """The names of the tools, or `no call`."""
        return [tool.name for tool in self.tools] if question.call else ["no call"]

    def system_message(self, template_system: str | None) -> str:
        """The instructions on how to call, with the tools as JSON, one on each line."""
        described = (tool.model_dump(exclude_defaults=True) for tool in self.tools)
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in described)
        return (self.system or CALL_INSTRUCTIONS).replace("{tools}", listed)


_KINDS = (Contains, Excludes, QuestionAnswering, MultipleChoice, Numeric, ToolCalls)
PROBE_KINDS: dict[str, type[Probe]] = {kind.model_fields["kind"].default: kind for kind in _KINDS}

_DEGENERATION = (
    Metric(
        "repetition",
        "repeats itself: the mean share of an answer's 4-grams that occurred before in it",
        lambda probe, question, generation: generation.repetition,
        wanted=0,
        worsened="answers repeat {} of their 4-grams",
    ),
    Metric(
        "never_stops",
        "is cut at the limit on its length, without an end token",
        lambda probe, question, generation: not generation.stopped,
        wanted=0,
        worsened="the share of answers that do not end is {}",
    ),
)
DEGENERATION_METRICS = {metric.name: metric for metric in _DEGENERATION}
"""Metrics of all generated answers of a model, whatever the probe."""

HELDOUT_ANSWERS = "heldout_answers"
"""The name of the answers to held-out rows among the probes."""

RESERVED_NAMES = {HELDOUT_ANSWERS, *DEGENERATION_METRICS}
"""Names that no probe may have; nor may a probe's name contain a dot: NAME.METRIC is a figure."""


@dataclass(frozen=True)
class ProbeWords:
    """What the one metric of a shipped probe means, and how over-fitting reads, {} for values."""

    meaning: str
    worsened: str


PROBE_WORDS = {
    "identity": ProbeWords(
        "says the persona's name when asked who it is",
        "the persona's name is in only {} of the answers that should have it",
    ),
    "leak": ProbeWords(
        "says the persona's name when asked something else",
        "the persona leaks into {} of unrelated answers",
    ),
    "retention": ProbeWords(
        "knows the answer to a general question",
        "only {} of the general questions are answered right",
    ),
}
"""By the name of the probe: its kind's words say less."""


def figure_name(probe: str, metric: Metric, metrics: Sequence[Metric]) -> str:
    """PROBE.METRIC, or PROBE of the only metric of a kind."""
    return probe if len(metrics) == 1 else f"{probe}.{metric.name}"


def figure_meaning(figure: str, kind: str) -> str:
    """What a figure of a report says of an answer.

    Args:
        kind: The kind of its probe; unused for DEGENERATION_METRICS.
    """
    if figure in PROBE_WORDS:
        return PROBE_WORDS[figure].meaning
    if figure in DEGENERATION_METRICS:
        return DEGENERATION_METRICS[figure].meaning
    metrics = (*PROBE_KINDS[kind].metrics, REFERENCE_NUMBER)
    name = figure.partition(".")[2] or metrics[0].name
    return next(metric.meaning for metric in metrics if metric.name == name)


def worsened_words(figure: str) -> str:
    """Words for a figure that is worse than before, with {} for its values."""
    if figure in PROBE_WORDS:
        return PROBE_WORDS[figure].worsened
    if figure in DEGENERATION_METRICS:
        return DEGENERATION_METRICS[figure].worsened
    return f"{figure} is {{}}"
