"""A question and the steps to its answer as one MLflow trace: agent, model and tool spans.

Spans are kept here and sent when the answer is there. MLflow's own `start_span` would write to the
process's one tracking store, which it also puts into the environment of the process, and would tell
a failure to nobody but its own log.
"""

import base64
import json
import logging
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from snaketune.tracking import mlflow_client as reach

log = logging.getLogger(__name__)

_PREVIEW = 1000
"""Characters of question and answer in MLflow's list of traces."""


@dataclass
class Span:
    """What was done from `start` to `end` (ns since the epoch), of kind AGENT, LLM or TOOL."""

    name: str
    kind: str
    inputs: Any
    start: int = field(default_factory=time.time_ns)
    end: int = 0
    outputs: Any = None
    error: str = ""
    id: bytes = field(default_factory=lambda: secrets.token_bytes(8))


class Spans(list[Span]):
    """The spans of one question; the first is all of it."""

    @contextmanager
    def span(self, name: str, kind: str, inputs: Any) -> Iterator[Span]:
        """Note when a block began and ended, and the exception that ended it."""
        span = Span(name, kind, inputs)
        self.append(span)
        try:
            yield span
        except BaseException as error:
            span.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            span.end = time.time_ns()


class Tracer:
    """Sends the traces of a conversation to MLflow, beside it; the first failure ends that.

    Args:
        study: Its MLflow experiment gets them.
    """

    def __init__(self, study: str) -> None:
        self.study = study
        self.session = secrets.token_hex(8)
        self.failed = False
        self._worker = ThreadPoolExecutor(1, "mlflow-trace")  # importing MLflow takes seconds

    def send(self, spans: Spans) -> None:
        """Have a question's spans sent; nothing that goes wrong there is raised."""
        self._worker.submit(self._send, spans)

    def close(self) -> None:
        """Wait until all is sent, as the interpreter does when it ends."""
        self._worker.shutdown()

    def _send(self, spans: Spans) -> None:
        if self.failed:
            return
        try:
            _log(self.study, self.session, spans)
        except Exception as error:  # MLflow raises many kinds, and none is worth a conversation
            self.failed = True
            log.warning(
                "MLflow at %s did not take the agent's trace (%s); no more are sent of this "
                "conversation. %s",
                reach.shown_uri(),
                reach.reason(error),
                reach.FIX,
            )


def _log(study: str, session: str, spans: Spans) -> None:
    from mlflow.entities import Span as MlflowSpan
    from mlflow.tracing.client import TracingClient

    for noisy in ("mlflow", "alembic"):  # they tell of the tables that they make, amid a chat
        logging.getLogger(noisy).setLevel(logging.WARNING)
    experiment = reach.experiment_id(reach.connect(), study)
    trace = secrets.token_bytes(16)
    client = TracingClient(reach.tracking_uri())
    client.log_spans(
        experiment, [MlflowSpan.from_dict(_as_otlp(each, trace, spans[0])) for each in spans]
    )
    client.start_trace(_info(experiment, session, trace, spans[0]))


def _info(experiment: str, session: str, trace: bytes, root: Span) -> Any:
    """Return what MLflow's list of traces shows."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    return TraceInfo(
        trace_id=_trace_id(trace),
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=root.start // 1_000_000,
        execution_duration=(root.end - root.start) // 1_000_000,
        state=TraceState.ERROR if root.error else TraceState.OK,
        request_preview=str(root.inputs["question"])[:_PREVIEW],
        response_preview=(root.error or root.outputs["text"])[:_PREVIEW],
        trace_metadata={"mlflow.trace_schema.version": "3", "mlflow.trace.session": session},
        tags={"mlflow.traceName": root.name},
    )


def _as_otlp(span: Span, trace: bytes, root: Span) -> dict[str, Any]:
    """Return a span in MLflow's form, whose attributes are JSON."""
    attributes = {
        "mlflow.traceRequestId": _trace_id(trace),
        "mlflow.spanType": span.kind,
        "mlflow.spanInputs": span.inputs,
        "mlflow.spanOutputs": span.outputs,
    }
    return {
        "trace_id": base64.b64encode(trace).decode(),
        "span_id": base64.b64encode(span.id).decode(),
        "parent_span_id": "" if span is root else base64.b64encode(root.id).decode(),
        "name": span.name,
        "start_time_unix_nano": span.start,
        "end_time_unix_nano": span.end,
        "status": {
            "code": "STATUS_CODE_ERROR" if span.error else "STATUS_CODE_OK",
            "message": span.error,
        },
        "attributes": {key: json.dumps(value) for key, value in attributes.items()},
    }


def _trace_id(trace: bytes) -> str:
    return f"tr-{trace.hex()}"
