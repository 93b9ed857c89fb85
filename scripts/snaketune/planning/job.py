"""One job as the workflow engine plans it, in plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PreviousResult:
    """A result that is there, and how long it once took to make.

    Attributes:
        seconds: Of the job that made it; None where that is not recorded.
        inputs: The files it was made of.
    """

    path: str
    seconds: float | None
    ended: float
    inputs: frozenset[str]


@dataclass(frozen=True)
class Job:
    """A job of a dry run.

    Attributes:
        rule: The rule's name.
        wildcards: Such as `experiment`.
        output: The files and folders it makes.
        runs: It would run; otherwise what it makes is used as it is.
        always: It runs each time it is asked for.
        made_before: It has run before, also if what it made is gone.
        interrupted: It began and was not finished.
        missing: Of its output, what is not there.
        touched: Input that is newer or has another content than when the job last ran.
        added, removed: Input files that it has now, or had then, alone.
        after: The rules of the jobs that will make its input anew.
        before: The values of parameters that changed, as they were, in no order.
        now: By name, the parameters that changed, as they are.
        environment: The description of its software environment changed.
        past: What the same rule has made, here or for other experiments.
    """

    rule: str
    wildcards: Mapping[str, str]
    output: Sequence[str]
    input: Sequence[str] = ()
    runs: bool = True
    always: bool = False
    made_before: bool = False
    interrupted: bool = False
    missing: Sequence[str] = ()
    touched: Sequence[str] = ()
    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    after: Sequence[str] = ()
    before: Sequence[Any] = ()
    now: Mapping[str, Any] = field(default_factory=dict)
    environment: bool = False
    past: Sequence[PreviousResult] = ()

    @property
    def stage(self) -> str:
        """The rule's name in words."""
        return self.rule.replace("_", " ")
