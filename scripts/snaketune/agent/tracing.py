"""What an agent did with a question, as spans: agent, model and tool.

They are collected here and handed to a `Tracer` when the answer is there. The one that sends them
to MLflow is `tracking.agent_traces`, so that an agent needs no MLflow.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class TraceSpan:
    """What was done from `start` to `end` (ns since the epoch), of kind AGENT, LLM or TOOL."""

    name: str
    kind: str
    inputs: Any
    start: int = field(default_factory=time.time_ns)
    end: int = 0
    outputs: Any = None
    error: str = ""
    id: bytes = field(default_factory=lambda: secrets.token_bytes(8))


class Spans(list[TraceSpan]):
    """The spans of one question; the first is the whole question."""

    @contextmanager
    def span(self, name: str, kind: str, inputs: Any) -> Iterator[TraceSpan]:
        """Record when a block began and ended, and the exception that ended it."""
        span = TraceSpan(name, kind, inputs)
        self.append(span)
        try:
            yield span
        except BaseException as error:
            span.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            span.end = time.time_ns()


class Tracer(Protocol):
    """Receives the spans of every question of a conversation."""

    def send(self, spans: Spans) -> None:
        """Take the spans of one question; raises nothing."""

    def close(self) -> None:
        """Wait until everything is sent."""
