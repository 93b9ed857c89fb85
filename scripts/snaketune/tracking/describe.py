"""What a run is, for MLflow: parameters, tags, a description in words, and its data sets."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from snaketune.core.files import read_json
from snaketune.experiment.experiment import Source
from snaketune.experiment.resolved import Resolved, package_versions
from snaketune.experiment.settings import flat
from snaketune.tracking.mlflow_client import git_commit
from snaketune.tracking.results import peak_mib

_VALUE_LENGTH = 6000
"""Characters that MLflow keeps of one parameter's value."""


def params(experiment: Resolved) -> list[tuple[str, str]]:
    """Return the whole configuration by dotted key, as text of the length that MLflow keeps."""
    pairs = flat(experiment.config.model_dump(mode="json"), "")
    return [(key, _as_text(value)[:_VALUE_LENGTH]) for key, value in pairs]


def tags(experiment: Resolved) -> dict[str, str]:
    """Return a run's tags: the first ones are columns worth showing in MLflow's table of runs."""
    config, commit = experiment.config, git_commit()
    return {
        "study": experiment.study,
        "variant": experiment.variant or "",
        "kind": "variant" if experiment.variant else "experiment",
        "data": _data(experiment),
        "method": _method(experiment),
        "deepspeed": config.train.deepspeed,
        "base_id": experiment.base_id,
        "data_id": experiment.data_id,
        "train_id": experiment.train_id,
        "git_commit": commit,
        "mlflow.source.name": f"experiments/{experiment.study}.yaml",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        **{f"version.{name}": number for name, number in package_versions().items()},
    }


def words(experiment: Resolved, train: dict[str, Any], report: dict[str, Any]) -> str:
    """Return a run's description in Markdown.

    Args:
        train: train.json, or {} while the run is not finished.
        report: eval/report.json, or {} before the evaluation.
    """
    parts = [experiment.config.description]
    variant = f"Variant **{experiment.variant}** of the study **{experiment.study}**: "
    what = f"{_method(experiment)} of {_base_name(experiment)}"
    parts.append(f"{variant if experiment.variant else ''}{what}{_how(experiment)}.")
    if "training_seconds" in train:
        took = timedelta(seconds=round(train["training_seconds"]))
        parts.append(
            f"{train['iterations']} iterations in {took} h, peak memory {peak_mib(train):.0f} MiB."
        )
    if report:
        parts.append(_found(report))
    parts.append(f"Its files are in `experiments/{experiment.name}/`.")
    return "\n\n".join(part for part in parts if part)


def _how(experiment: Resolved) -> str:
    """Return how a run is trained, or what it is converted from."""
    config, train = experiment.config, experiment.config.train
    if config.convert_from:
        return f", converted from {config.convert_from}"
    steps, epochs = train.max_steps, train.epochs
    length = _several(epochs, "epoch") if steps is None else _several(steps, "update")
    return (
        f" on {_data(experiment)}, {length}, learning rate {train.lr:g}, batches of "
        f"{train.batch_size} × {train.accumulate}, DeepSpeed {train.deepspeed}"
    )


def _several(count: float, thing: str) -> str:
    return f"{count:.10g} {thing}{'s' if count != 1 else ''}"


def datasets(experiment: Resolved, data: Path) -> list[Any]:
    """Return a run's sources as MLflow's dataset inputs, for training and those held out.

    The digest is the data_id: other rows, another template or another length are other data.

    Args:
        data: The processed data's folder, with report.json.
    """
    report = data / "report.json"
    found = read_json(report) if report.exists() else {"sources": []}
    of_label = {row["source"]: row for row in found["sources"]}
    inputs = []
    for source in _sources(experiment):
        row = of_label.get(source.label, {})
        numbers = {key: value for key, value in row.items() if isinstance(value, int)}
        profile = numbers | {"weight": source.weight, "all_sources": _counts(found, "train")}
        inputs.append(_input(experiment, source, "training", profile))
        if row.get("samples_heldout"):
            held = {"samples": row["samples_heldout"], "all_sources": _counts(found, "heldout")}
            inputs.append(_input(experiment, source, "heldout", held))
    return inputs


def _counts(report: dict[str, Any], part: str) -> dict[str, int]:
    """Return how many samples and tokens the sources make together."""
    found = report.get(part) or {}
    return {key: found[key] for key in ("samples", "tokens", "supervised_tokens") if key in found}


def _input(experiment: Resolved, source: Source, context: str, profile: dict[str, Any]) -> Any:
    """Return a data set as MLflow keeps it; its name is unique among those of one digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    kind, where = _origin(source)
    dataset = Dataset(
        name=source.label if context == "training" else f"{source.label} ({context})",
        digest=experiment.data_id,
        source_type=kind,
        source=json.dumps(where),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _origin(source: Source) -> tuple[str, dict[str, str]]:
    """Return where rows come from, in the terms of a DatasetSource that MLflow knows."""
    hub = source.hub
    if hub is None:
        return "local", {"uri": source.path}
    if hub.source.startswith("hf:"):
        path = hub.source.removeprefix("hf:")
        return "hugging_face", {"path": path, "revision": hub.revision, "data_files": hub.file}
    return "local", {"uri": f"{hub.source}@{hub.revision}/{hub.file}"}


def _found(report: dict[str, Any]) -> str:
    """Return the evaluation in a table: the base model, the merged one, and what is wanted."""
    lines = ["| | base | merged | wanted |", "|---|---|---|---|"]
    for name, row in report.get("probes", {}).items():
        wanted = "" if row.get("wanted") is None else f"{row['wanted']:g}"
        told = [(row.get(model) or {}).get("value") for model in ("base", "merged")]
        values = ["–" if value is None else f"{value:.2f}" for value in told]
        lines.append(f"| {name} | {' | '.join(values)} | {wanted} |")
    losses = [report["heldout"][model]["loss"] for model in ("base", "merged")]
    if None not in losses:
        values = [f"{loss:.3f}" for loss in losses]
        lines.append(f"| held-out loss | {' | '.join(values)} | low |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _sources(experiment: Resolved) -> list[Source]:
    return [Source.model_validate(each) for each in experiment.values.get("sources") or []]


def _data(experiment: Resolved) -> str:
    return " + ".join(_label(source) for source in _sources(experiment))


def _label(source: Source) -> str:
    return source.label + (f" ×{source.weight:g}" if source.weight != 1 else "")


def _base_name(experiment: Resolved) -> str:
    """Return the base model's name without the digest of its id."""
    return experiment.base_id.rpartition("-")[0] or experiment.base_id


def _method(experiment: Resolved) -> str:
    method = experiment.config.method
    if method.name == "full":
        return "full fine-tune"
    return f"{method.name} r={method.r} alpha={method.alpha:g}"


def _set(value: Any) -> Any:
    """Return a list's entries without the keys that are not set: nobody could read them."""
    if isinstance(value, list):
        return [_set(each) for each in value]
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if each not in (None, {})}
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_set(value), ensure_ascii=False)
