"""Tasks of lm-evaluation-harness, run by its own package (`pip install -e '.[lm-eval]'`).

A task is run as the harness runs it, without the chat template, so that figures compare with
published ones.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from snaketune.core.errors import UserError, nearest
from snaketune.evaluation.evaluation_record import HarnessFigure
from snaketune.experiment.experiment import is_task_file

_BATCH = 8


class Harness:
    """Some tasks, ready to be run on any number of models.

    Args:
        tasks: Names, or paths of YAML files.

    Raises:
        UserError: lm_eval is not installed, or it cannot load a task.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        if importlib.util.find_spec("lm_eval") is None:
            raise UserError(
                f"evaluate.lm_eval: {', '.join(tasks)} need lm-evaluation-harness, which is not "
                "installed.\n  Fix: pip install -e '.[lm-eval]', or remove the key."
            )
        from lm_eval.tasks import TaskManager  # takes seconds

        self.tasks = list(tasks)
        # indexing the thousands of tasks that the package brings takes seconds more
        local = all(map(is_task_file, tasks))
        self._manager = TaskManager(include_defaults=not local)
        named = [task for task in tasks if not is_task_file(task)]
        for task in named:
            if task not in self._manager.all_tasks:
                hint = nearest(task, self._manager.all_tasks)
                raise UserError(
                    f"evaluate.lm_eval: lm-evaluation-harness has no task '{task}'.{hint}\n"
                    "  Fix: correct the name; `lm-eval ls tasks` lists all tasks."
                )
        with self._explained():
            self._manager.load(self.tasks)

    def measure(self, model: Any, tokenizer: Any) -> dict[str, dict[str, HarnessFigure]]:
        """Run all tasks; figures by task and metric.

        A metric behind a filter other than the harness's `none` is named METRIC,FILTER.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH)
        with self._explained():
            results = simple_evaluate(
                wrapped, tasks=self.tasks, task_manager=self._manager, log_samples=False
            )
        return {task: _figures(results, task) for task in results["results"]}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        # the harness raises these for a wrong task file, missing data and missing packages alike
        except (KeyError, ValueError, TypeError, OSError, ImportError) as error:
            raise UserError(
                f"lm-evaluation-harness cannot run {', '.join(self.tasks)}: {error}\n"
                "  Fix: correct the task (evaluate.lm_eval), or fetch its data on a machine with "
                "internet access."
            ) from error


def _figures(results: dict[str, Any], task: str) -> dict[str, HarnessFigure]:
    """Read the flat keys `METRIC,FILTER` and `METRIC_stderr,FILTER` of a task's results."""
    row = results["results"][task]
    better = results["higher_is_better"].get(task, {})
    count = results["n-samples"].get(task, {}).get("effective")
    figures = {}
    for key, value in row.items():
        metric, _, through = key.partition(",")
        if not through or metric.endswith("_stderr"):
            continue
        error = row.get(f"{metric}_stderr,{through}")
        figures[metric if through == "none" else key] = HarnessFigure(
            value=value,
            stderr=error if isinstance(error, float) else None,  # "N/A" where none is defined
            n=count,
            higher_is_better=better.get(metric),
        )
    return figures
