"""Tasks of lm-evaluation-harness, run by its own package (`pip install -e '.[lm-eval]'`).

A task is put as the harness puts it: without the chat template, so that figures compare with
published ones.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from snaketune.core.errors import UserError, nearest
from snaketune.experiment.experiment import is_task_file

_BATCH = 8


class Harness:
    """Some tasks, ready to be put to any number of models.

    Args:
        tasks: Names, or paths of YAML files.

    Raises:
        UserError: lm_eval is not installed, or it cannot load a task.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        if importlib.util.find_spec("lm_eval") is None:
            raise UserError(
                f"evaluate.lm_eval: {', '.join(tasks)} need lm-evaluation-harness, which is not "
                "installed.\n  Fix: pip install -e '.[lm-eval]', or leave the key out."
            )
        from lm_eval.tasks import TaskManager  # seconds

        self.tasks = list(tasks)
        local = all(map(is_task_file, tasks))
        self._manager = TaskManager(include_defaults=not local)
        named = [task for task in tasks if not is_task_file(task)]
        for task in named:
            if task not in self._manager.all_tasks:
                hint = nearest(task, self._manager.all_tasks)
                raise UserError(
                    f"evaluate.lm_eval: lm-evaluation-harness has no task '{task}'.{hint}\n"
                    "  Fix: correct the name; `lm-eval ls tasks` lists them all."
                )
        with self._told():
            self._manager.load(self.tasks)

    def measure(self, model: Any, tokenizer: Any) -> dict[str, dict[str, Any]]:
        """Return of each task and metric `value`, `stderr`, `n` and `higher_is_better`.

        A metric behind another filter than the harness' `none` is called METRIC,FILTER. `stderr`
        and `higher_is_better` are None where the harness tells none.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH)
        with self._told():
            found = simple_evaluate(
                wrapped, tasks=self.tasks, task_manager=self._manager, log_samples=False
            )
        return {task: _figures(found, task) for task in found["results"]}

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, ValueError, TypeError, OSError, ImportError) as error:
            raise UserError(
                f"lm-evaluation-harness cannot run {', '.join(self.tasks)}: {error}\n"
                "  Fix: correct the task, or get its data where there is internet; see "
                "evaluate.lm_eval."
            ) from error


def _figures(found: dict[str, Any], task: str) -> dict[str, Any]:
    row = found["results"][task]
    better = found["higher_is_better"].get(task, {})
    count = found["n-samples"].get(task, {}).get("effective")
    figures = {}
    for key, value in row.items():
        metric, _, through = key.partition(",")
        if not through or metric.endswith("_stderr"):
            continue
        error = row.get(f"{metric}_stderr,{through}")
        figures[metric if through == "none" else key] = {
            "value": value,
            "stderr": error if isinstance(error, float) else None,
            "n": count,
            "higher_is_better": better.get(metric),
        }
    return figures
