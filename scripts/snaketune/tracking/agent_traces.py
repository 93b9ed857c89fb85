"""An agent's questions as MLflow traces.

Spans are sent when the answer is there. MLflow's own `start_span` would write to the process's one
tracking store, which it also puts into the environment of the process, and would report a failure
in its own log only.
"""

import base64
import json
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from snaketune.agent.tracing import Spans, TraceSpan
from snaketune.tracking import mlflow_adapter, mlflow_client

log = logging.getLogger(__name__)

_PREVIEW = 1000
"""Characters of question and answer in MLflow's list of traces."""


class MlflowTracer:
    """Sends the traces of a conversation in the background; the first failure ends that.

    Args:
        study: Its MLflow experiment receives them.
    """

    def __init__(self, study: str) -> None:
        self.study = study
        self.session = secrets.token_hex(8)
        self.failed = False
        self._worker = ThreadPoolExecutor(1, "mlflow-trace")  # importing MLflow takes seconds

    def send(self, spans: Spans) -> None:
        """Send a question's spans in the background; failures are only logged."""
        self._worker.submit(self._send, spans)

    def close(self) -> None:
        """Wait until everything is sent, as the interpreter does when it ends."""
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
                mlflow_client.shown_uri(),
                mlflow_client.reason(error),
                mlflow_client.FIX,
            )


def _log(study: str, session: str, spans: Spans) -> None:
    from mlflow.entities import Span as MlflowSpan

    # they log the tables that they create, in the middle of a chat
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    experiment = mlflow_client.experiment_id(mlflow_client.connect(), study)
    trace = secrets.token_bytes(16)
    client = mlflow_adapter.tracing_client(mlflow_client.tracking_uri())
    client.log_spans(
        experiment, [MlflowSpan.from_dict(_as_otlp(span, trace, spans[0])) for span in spans]
    )
    client.start_trace(_info(experiment, session, trace, spans[0]))


def _info(experiment: str, session: str, trace: bytes, root: TraceSpan) -> Any:
    """What MLflow's list of traces shows."""
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


def _as_otlp(span: TraceSpan, trace: bytes, root: TraceSpan) -> dict[str, Any]:
    """A span in MLflow's form, whose attributes are JSON."""
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
