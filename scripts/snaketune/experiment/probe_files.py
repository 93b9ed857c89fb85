"""experiments/probes/NAME.yaml as typed models: questions, and how their answers are scored.

A file is a list of questions, or a mapping with `kind:` and `questions:` (or `rows:`, a data file
beside it with one question a row). Every mistake is told with its line. No torch here.
"""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from snaketune.core.errors import UserError, nearest
from snaketune.experiment.document import Document, DocumentError, Place, Problem, read_document
from snaketune.experiment.explain import explain
from snaketune.experiment.schema import Positive, Strict

HELDOUT_ANSWERS = "heldout_answers"
"""What the answers to held-out rows are called among the probes."""

DEGENERATION_METRICS = {"repetition", "never_stops"}
"""Figures over all answers of a model."""

RESERVED = {HELDOUT_ANSWERS, *DEGENERATION_METRICS}
"""Names of figures that are no probe's; nor has a probe's name a dot: NAME.METRIC is a figure."""

Text = Annotated[str, Field(min_length=1)]


def _written_out(value: Any) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return format(Decimal(str(value)), "f") if is_number else value


class ProbeQuestion(Strict):
    """What is asked."""

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
    def _is_a_choice(self) -> "ChoiceQuestion":
        if self.answer not in self.choices:
            hint = nearest(self.answer, self.choices)
            raise ValueError(f"answer: '{self.answer}' is none of the choices.{hint}")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("choices: one is there twice")
        return self


class NumericQuestion(ProbeQuestion):
    """The last number in `answer` is the right one, so that GSM8K's rows fit as they are."""

    answer: Annotated[Text, BeforeValidator(_written_out)]

    @field_validator("answer")
    @classmethod
    def _has_a_number(cls, text: str) -> str:
        if not any(char.isdecimal() for char in text):
            raise ValueError(f"expected a number, or a text that ends in one, found '{text}'")
        return text


class ToolCallQuestion(ProbeQuestion):
    """`call` tells whether a tool is needed; where none is, none should be called."""

    call: bool = True


class ProbeTool(Strict):
    """A tool that may be called."""

    name: Text
    description: str = ""
    arguments: dict[str, str] = Field({}, description="what each is")
    required: list[str] = Field([], description="those that must be given")

    @model_validator(mode="after")
    def _requires_its_own(self) -> "ProbeTool":
        for name in self.required:
            if name not in self.arguments:
                known = ", ".join(self.arguments) or "none"
                hint = nearest(name, self.arguments)
                raise ValueError(f"required: '{name}' is no argument.{hint} Known: {known}")
        return self


class Probe(Strict):
    """Questions of one kind, answered greedily in at most `max_new_tokens` tokens."""

    kind: str
    wanted: ClassVar[int] = 1
    questions: list[Any] = Field(min_length=1)
    max_new_tokens: Positive = 48


class Contains(Probe):
    """The share of answers with an accepted form, as whole words."""

    kind: Literal["contains"] = "contains"
    questions: list[ContainsQuestion] = Field(min_length=1)


class Excludes(Contains):
    """The same share, of which none is wanted."""

    kind: Literal["excludes"] = "excludes"  # type: ignore[assignment]
    wanted: ClassVar[int] = 0


class QuestionAnswering(Probe):
    """Exact match, token F1 and ROUGE-L against the best of `answers`."""

    kind: Literal["question_answering"] = "question_answering"
    questions: list[ReferenceQuestion] = Field(min_length=1)


class MultipleChoice(Probe):
    """How often the right choice is the likeliest answer: nothing is generated."""

    kind: Literal["multiple_choice"] = "multiple_choice"
    questions: list[ChoiceQuestion] = Field(min_length=1)


class Numeric(Probe):
    """The share of answers whose last number is the right one."""

    kind: Literal["numeric"] = "numeric"
    questions: list[NumericQuestion] = Field(min_length=1)


class ToolCalls(Probe):
    """Shares of answers whose Action and Action Input can be used, and of those rightly without.

    `system` takes the place of our own words on how to call; `{tools}` in it becomes the list.
    """

    kind: Literal["tool_calls"] = "tool_calls"
    questions: list[ToolCallQuestion] = Field(min_length=1)
    tools: list[ProbeTool] = Field(min_length=1)
    system: Text | None = None


_TYPES = (Contains, Excludes, QuestionAnswering, MultipleChoice, Numeric, ToolCalls)
KINDS: dict[str, type[Probe]] = {each.model_fields["kind"].default: each for each in _TYPES}


def known_probes(folder: Path) -> list[str]:
    """Return the names of the probes in experiments/probes."""
    names = (file.stem for file in folder.glob("*.yaml"))
    return sorted(name for name in names if name not in RESERVED and "." not in name)


def read_probe(file: Path, persona: str | None) -> Probe:
    """Return a file's probe, all of whose questions can be scored.

    Args:
        persona: The name that the data teaches the model, looked for where a question of a probe
            of kind `contains` or `excludes` accepts nothing else.

    Raises:
        UserError: With everything that is wrong in the file.
    """
    found: list[Problem] = []
    probe = _read(file, persona, found)
    if probe is None or found:
        listed = "\n".join(f"  {problem}" for problem in found)
        raise UserError(f"the questions of probe '{file.stem}' cannot be put:\n{listed}")
    return probe


def probe_problems(file: Path, persona: str | None) -> list[Problem]:
    """Return everything that is wrong in a probe's file."""
    found: list[Problem] = []
    _read(file, persona, found)
    return found


def rows_file(file: Path) -> Path | None:
    """Return the data file that a probe's questions are read from, if there is one."""
    try:
        rows = _document(file).values.get("rows")
    except DocumentError:
        return None
    return file.parent / rows if isinstance(rows, str) else None


def task_files(task: Path) -> list[Path]:
    """Return a task file of lm-evaluation-harness and the local data files that it names.

    Their paths are relative to the working folder, as the harness takes them.
    """
    try:
        told = read_document(task).values.get("dataset_kwargs") or {}
    except DocumentError:
        return [task]
    named = told.get("data_files") if isinstance(told, dict) else None
    values = named.values() if isinstance(named, dict) else [named]
    flat = (each for value in values for each in (value if isinstance(value, list) else [value]))
    return [task, *(Path(each) for each in flat if isinstance(each, str) and Path(each).is_file())]


def _read(file: Path, persona: str | None, problems: list[Problem]) -> Probe | None:
    try:
        document = _document(file)
    except DocumentError as error:
        problems.append(error.problem)
        return None
    kind = document.values.setdefault("kind", "excludes" if file.stem == "leak" else "contains")
    if not isinstance(kind, str) or kind not in KINDS:
        hint = nearest(str(kind), KINDS)
        message = f"found {kind!r}, expected {', '.join(KINDS)}.{hint}"
        problems.append(Problem(document.place(("kind",)), message, "kind"))
        return None
    _fill_in_rows(document, problems)
    if problems:
        return None
    try:
        probe = KINDS[kind].model_validate(document.values)
    except ValidationError as error:
        problems += explain(error, KINDS[kind], document)
        return None
    return _with_persona(probe, persona, document, problems)


def _document(file: Path) -> Document:
    return read_document(file, list_as="questions")


def _fill_in_rows(document: Document, problems: list[Problem]) -> None:
    """Put the questions of `rows:` into the document, with the places they stand at."""
    if "rows" not in document.values:
        return
    place, name = document.place(("rows",)), document.values.pop("rows")
    if "questions" in document.values:
        problems.append(Problem(place, "use either `questions` or `rows`, not both", "rows"))
    elif not isinstance(name, str):
        problems.append(Problem(place, "expected a file beside this one", "rows"))
    else:
        try:
            rows = list(_rows(document.file.parent / name))
        except UserError as error:
            problems.append(Problem(place, str(error).splitlines()[0], "rows"))
            return
        document.values["questions"] = [value for _, value in rows]
        for index, (where, _) in enumerate(rows):
            document.places["questions", index] = where


def _rows(file: Path) -> Iterator[tuple[Place, Any]]:
    from snaketune.data.reading import read_rows  # pyarrow, and few probes have rows

    for row in read_rows(file):
        name, _, line = row.place.rpartition(":")
        yield Place(Path(name), int(line)), row.value


def _with_persona(
    probe: Probe, persona: str | None, document: Document, problems: list[Problem]
) -> Probe:
    """Return the probe with the persona's name where a question accepts nothing."""
    if not isinstance(probe, Contains):
        return probe
    lacking = [index for index, each in enumerate(probe.questions) if not each.accept]
    if lacking and persona is None:
        message = (
            "nothing is accepted as an answer, and the data teaches no one name. Give it "
            "accept: [...], or the data source its vars: {name: ...}"
        )
        place = document.place(("questions", lacking[0]))
        problems.append(Problem(place, message, f"questions[{lacking[0]}]"))
        return probe
    name = {"accept": [persona]}
    questions = [each if each.accept else each.model_copy(update=name) for each in probe.questions]
    return probe.model_copy(update={"questions": questions})
