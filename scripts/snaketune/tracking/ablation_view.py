"""The saved view "Ablation" of a study in MLflow's UI: its variants in a flat list, sorted by
name, with what they differ in and what came of it as columns.

MLflow nests a study's variants below their parent, closed, and shows no metric until one picks
some; a saved view picks them. It is a tag of MLflow's experiment as its UI writes it (3.17,
mlflow/server/js, "Views"); a UI that does not know it ignores it.
"""

import json
import time
from collections.abc import Iterable
from typing import Any

from snaketune.tracking.mlflow_adapter import VIEW_TAG

KEY = "ablation"
_TAG = VIEW_TAG + KEY
_TAGS = ("data", "method", "deepspeed")
_COSTS = ("cost/seconds", "cost/peak_mib")


def path(experiment_id: str) -> str:
    """Return the view's path and query on an MLflow server."""
    return (
        f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={KEY}"
    )


def put_view(connection: Any, experiment_id: str, results: Iterable[str]) -> None:
    """Write the view, with more columns than before if a variant has other results.

    Args:
        results: Names of metrics: `after/leak`.
    """
    tags = connection.get_experiment(experiment_id).tags
    before = json.loads(tags.get(_TAG, "{}"))
    shown = json.loads(before.get("state", "{}")).get("selectedColumns", [])
    columns = [f"tags.`{name}`" for name in _TAGS]
    columns += [f"metrics.`{name}`" for name in (*results, *_COSTS)]
    if set(columns) <= set(shown):
        return
    now = int(time.time() * 1000)
    state = {
        "searchFilter": "tags.kind = 'variant'",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "selectedColumns": list(dict.fromkeys([*shown, *columns])),
    }
    view = {"name": "Ablation", "createdAt": before.get("createdAt", now), "updatedAt": now}
    view["state"] = json.dumps(state)
    connection.set_experiment_tag(experiment_id, _TAG, json.dumps(view))
