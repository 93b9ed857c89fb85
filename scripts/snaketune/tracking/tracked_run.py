"""One experiment's run in MLflow: found or made, and brought up to date from local files.

What was sent is noted in checkpoints/mlflow.json, after each request: a run that goes on continues
its MLflow run, nothing is sent twice, and nothing is missed. The note goes aside with the files of
a superseded run, and comes back with them.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from snaketune.core.files import locked, read_json, read_jsonl, sha256, write_json
from snaketune.experiment.resolved import Resolved, read_resolved
from snaketune.tracking import describe, mlflow_client, results, system
from snaketune.tracking.ablation_view import put_view
from snaketune.tracking.mlflow_adapter import TABLES_TAG
from snaketune.tracking.results import Figure
from snaketune.tracking.study import parent_run

log = logging.getLogger(__name__)

_BATCH = 1000
"""Metrics that one MLflow request takes at most."""
_PARAMS = 100
"""Parameters that one MLflow request takes at most."""

REPORTS = ("report.html", "report.json")
"""In experiments/X/data, eval and agent, sent as artifacts of the same path once they are there."""


class TrackedRun:
    """An experiment's run in MLflow.

    Args:
        folder: experiments/X/checkpoints.
        experiment: What is trained, for names, tags and parameters.
        data: The processed data's folder; that of its data_id unless it is given.
    """

    def __init__(self, folder: Path, experiment: Resolved, data: Path | None = None) -> None:
        self.folder, self.experiment = folder, experiment
        self.data = data or Path("store/data") / experiment.data_id
        self.note = folder / "mlflow.json"
        self.client: Any = None
        self.sent: dict[str, Any] = {}

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, once it is open."""
        return self.sent["run_id"]

    def open(self) -> None:
        """Connect, and find this run in MLflow or start one; what does not change is sent once."""
        if self.sent.get("described"):
            return
        self.client = self.client or mlflow_client.connect()
        self.sent = read_json(self.note) if self.note.exists() else {}
        uri = mlflow_client.shown_uri()
        if self.sent.get("tracking_uri") != uri or not mlflow_client.is_active(
            self.client, self.run_id
        ):
            study_id = self._study_id()
            tags = describe.tags(self.experiment)
            run = self.client.create_run(
                study_id, self._started(), tags, run_name=self.experiment.name
            )
            # noted at once: a server lost now must not cost a second run
            self.sent = {}
            self._note(tracking_uri=uri, run_id=run.info.run_id, iteration=0)
        self._once("described", self._describe)

    def catch_up(self) -> None:
        """Send all that is missing, and the state of a run that nobody trains any more.

        Raises:
            Exception: Whatever MLflow raises when the server cannot be reached.
        """
        self.open()
        self._adopt()
        finished = (self.folder / "train.json").exists()
        status = self.client.get_run(self.run_id).info.status
        if finished or status == "RUNNING":
            status = "FINISHED" if finished else "FAILED"
        self.send_progress()
        self.end(status)

    def send_progress(self) -> None:
        """Send what was measured since, of the iterations, the machine and the held-out rows."""
        rows = read_jsonl(self.folder / "metrics.jsonl")
        seen = results.tokens_seen(rows)

        def progress(row: dict[str, Any]) -> Iterator[Figure]:
            return results.progress_figures(row, seen[row["iteration"]])

        def validation(row: dict[str, Any]) -> Iterator[Figure]:
            return results.validation_figures(row, seen[row["iteration"]])

        self._send_rows("iteration", rows, progress)
        self._send_rows("validated", read_jsonl(self.folder / "validation.jsonl"), validation)
        machine = read_jsonl(self.folder / system.FILE)
        self._send_rows("observed", machine, results.system_figures)

    def end(self, status: str) -> None:
        """Send samples, figures and reports as far as they are there, and how the run ended."""
        samples = self.folder / "samples.jsonl"
        self._send_table(samples, "samples.json", lambda: _samples(samples))
        self._send_training()
        self._send_reports("data")
        self._send_evaluation()
        self._send_agent()
        self.client.set_terminated(self.run_id, status=status, end_time=self._ended())

    def _describe(self) -> None:
        """Send what a run has from its start: parameters, data sets, words and its parent."""
        params = describe.params(self.experiment)
        from mlflow.entities import Param

        for start in range(0, len(params), _PARAMS):
            part = [Param(key, value) for key, value in params[start : start + _PARAMS]]
            self.client.log_batch(self.run_id, params=part)
        self._send_artifact(self.folder / "resolved.yaml")
        self._say({}, {})
        self._adopt()

    def _adopt(self) -> None:
        """Put a variant's run below its study's, and tell its data sets; also of an older run."""
        if self.experiment.variant:
            parent = parent_run(self.client, self._study_id(), self.experiment)
            if parent != self.sent.get("parent"):
                self.client.set_tag(self.run_id, "mlflow.parentRunId", parent)
                self._note(parent=parent)
        self._once("inputs", self._send_inputs)

    def _send_inputs(self) -> None:
        if inputs := describe.datasets(self.experiment, self.data):
            self.client.log_inputs(self.run_id, inputs)

    def _send_rows(
        self,
        noted: str,
        rows: list[dict[str, Any]],
        figures: Callable[[dict[str, Any]], Iterable[Figure]],
    ) -> None:
        """Send the rows after the iteration that is noted, and note each request."""
        new = [row for row in rows if row["iteration"] > self.sent.get(noted, 0)]
        metrics: list[Any] = []
        last = 0
        for row in new:
            found = [_metric(each, _time(row)) for each in figures(row)]
            if metrics and len(metrics) + len(found) > _BATCH:
                self.client.log_batch(self.run_id, metrics=metrics)
                self._note(**{noted: last})
                metrics = []
            metrics += found
            last = row["iteration"]
        if metrics:
            self.client.log_batch(self.run_id, metrics=metrics)
            self._note(**{noted: last})

    def _send_training(self) -> None:
        file = self.folder / "train.json"
        if self._send_artifact(file):
            train = read_json(file)
            self._send_figures(results.training_figures(train), file)
            self._say(train, {})

    def _report(self, stage: str) -> tuple[Path, dict[str, Any] | None]:
        """Return a stage's report.json, and what it tells if it is of these very weights."""
        file = self.folder.parent / stage / "report.json"
        report = read_json(file) if file.exists() else None
        own = report is not None and report["ids"]["train"] == self.experiment.train_id
        return file, report if own else None

    def _send_agent(self) -> None:
        """Send what an agent with this model did."""
        file, report = self._report("agent")
        if report is None:
            return
        if self._is_new(file):
            train = read_json(self.folder / "train.json")
            self._send_figures(results.agent_figures(report, train), file)
            self._send_table(file, "agent/answers.json", lambda: results.agent_table(report))
        self._send_reports("agent")

    def _send_evaluation(self) -> None:
        """Send the figures and tables of the evaluation."""
        file, report = self._report("eval")
        if report is None:
            return
        if self._is_new(file):
            self._send_findings(file, report)
        self._send_reports("eval")

    def _send_findings(self, file: Path, report: dict[str, Any]) -> None:
        figures = results.evaluation_figures(report)
        self._send_figures(figures, file)
        names = [each.name for each in figures if each.name.startswith("after/")]
        if self.experiment.variant:
            put_view(self.client, self._study_id(), names)
        self._say(report["training"], report)
        self._send_table(file, "eval/answers.json", lambda: results.answer_table(report))
        probes = file.with_name("probes.jsonl")
        rows = read_jsonl(probes)
        self._send_table(probes, "eval/probes.json", lambda: results.probe_table(rows))

    def _send_reports(self, stage: str) -> None:
        for name in REPORTS:
            self._send_artifact(self.folder.parent / stage / name, stage)

    def _send_figures(self, figures: Iterable[Figure], file: Path) -> None:
        """Send figures; their file's own time lets MLflow drop what it already has."""
        written = int(file.stat().st_mtime * 1000)
        metrics = [_metric(figure, written) for figure in figures]
        for start in range(0, len(metrics), _BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])

    def _send_table(self, file: Path, name: str, table: Callable[[], list[dict[str, Any]]]) -> None:
        """Send a table in the layout of `mlflow.log_table`, in place of the one before.

        `log_table` itself can only append: what was sent but not noted would be there twice.
        """
        if not file.exists() or not self._is_new(file, name):
            return
        if rows := table():
            columns = list(rows[0])
            data = [[row[column] for column in columns] for row in rows]
            self.client.log_dict(self.run_id, {"columns": columns, "data": data}, name)
            tables = sorted({*self.sent.get("tables", []), name})
            listed = json.dumps([{"path": path, "type": "table"} for path in tables])
            self.client.set_tag(self.run_id, TABLES_TAG, listed)
            self._note(tables=tables)
        self._note_file(file, name)

    def _send_artifact(self, file: Path, folder: str | None = None) -> bool:
        """Send a file if it is there and another than last time; tell whether it was."""
        if not file.exists() or not self._is_new(file):
            return False
        self.client.log_artifact(self.run_id, str(file), folder)
        self._note_file(file)
        return True

    def _say(self, train: dict[str, Any], report: dict[str, Any]) -> None:
        """Describe the run in words, unless these were said: someone may have edited them."""
        words = describe.words(self.experiment, train, report)
        if words != self.sent.get("words"):
            self.client.set_tag(self.run_id, "mlflow.note.content", words)
            self._note(words=words)

    def _started(self) -> int:
        """Return when the training began, in milliseconds: now, unless it is finished."""
        file = self.folder / "train.json"
        took = read_json(file).get("training_seconds", 0) if file.exists() else 0
        return self._ended() - int(took * 1000) if file.exists() else int(time.time() * 1000)

    def _ended(self) -> int:
        """Return when the training ended, in milliseconds, however much later that is sent."""
        files = [self.folder / name for name in ("train.json", "metrics.jsonl")]
        written = [file.stat().st_mtime for file in files if file.exists()]
        return int((written[0] if written else time.time()) * 1000)

    def _study_id(self) -> str:
        return mlflow_client.experiment_id(self.client, self.experiment.study)

    def _is_new(self, file: Path, name: str = "") -> bool:
        return self.sent.get("files", {}).get(name or self._name(file)) != sha256(file)

    def _note_file(self, file: Path, name: str = "") -> None:
        digest = {name or self._name(file): sha256(file)}
        self._note(files=self.sent.get("files", {}) | digest)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder.parent).as_posix()

    def _once(self, noted: str, send: Callable[[], None]) -> None:
        if not self.sent.get(noted):
            send()
            self._note(**{noted: True})

    def _note(self, **news: Any) -> None:
        self.sent |= news
        write_json(self.note, self.sent)


def send_run(checkpoints: Path) -> None:
    """Send MLflow what it lacks of an experiment; a server that is away costs one warning.

    Args:
        checkpoints: experiments/X/checkpoints, of a finished training.
    """
    with (
        mlflow_client.tolerated(f"the results of {checkpoints.parent.name}"),
        locked(checkpoints, 60),
    ):
        TrackedRun(checkpoints, read_resolved(checkpoints / "resolved.yaml")).catch_up()


def _samples(file: Path) -> list[dict[str, Any]]:
    return results.sample_table(read_jsonl(file))


def _metric(figure: Figure, milliseconds: int) -> Any:
    from mlflow.entities import Metric

    return Metric(figure.name, figure.value, milliseconds, figure.step)


def _time(row: dict[str, Any]) -> int:
    """Return when a row was measured, or now, in milliseconds."""
    return int(row.get("unix_seconds", time.time()) * 1000)
