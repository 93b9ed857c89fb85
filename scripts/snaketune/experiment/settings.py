"""What differs between variants, by dotted key and with every default filled in."""

import json
from collections.abc import Iterable, Mapping, Set
from typing import Any

from snaketune.experiment.affects import Affects, affecting
from snaketune.experiment.experiment import Experiment, Source
from snaketune.experiment.schema import Configuration

Settings = dict[str, Any]

SEED = "train.seed"


def settings(experiment: Experiment) -> Settings:
    """An experiment's settings by dotted key, without its description.

    `data` and `model` are one setting each; data sources are those of the catalog, filled in.
    """
    config = experiment.config.model_dump(mode="json", exclude={"description", "data", "model"})
    model = experiment.config.model
    if not isinstance(model, str):
        model = " at ".join(filter(None, (model.source, model.revision)))
    return {"model": model, "data": experiment.sources} | dict(flat(config, ""))


def decisive(variants: Iterable[Settings], *marks: Affects) -> Set[str]:
    """The settings with any of these marks (affects.py), as far as they decide in some variant.

    `train.validate_every` decides about the weights only where `train.early_stop` is set.
    """
    stops_early = any(variant.get("train.early_stop") for variant in variants)
    conditional = affecting(Configuration, Affects.STOPPING)
    if Affects.WEIGHTS in marks and stops_early:
        marks = (*marks, Affects.STOPPING)
    found = affecting(Configuration, *marks)
    return found - conditional if Affects.PROGRESS in marks and stops_early else found


def differing(variants: Mapping[str, Settings]) -> dict[str, dict[str, Any]]:
    """The keys whose values are not all equal, each with every variant's value.

    The values of `data` become lists of texts, one per source; the others are as configured.
    """
    keys = list(dict.fromkeys(key for variant in variants.values() for key in variant))
    values = {key: {name: variant.get(key) for name, variant in variants.items()} for key in keys}
    lines = {key: line for key, line in values.items() if not _all_equal(line.values())}
    described: dict[str, Any] = _readable(lines["data"]) if "data" in lines else {}
    return lines | ({"data": described} if described else {})


def changed(one: Settings, other: Settings) -> set[str]:
    """The keys by which two variants differ, besides their seed."""
    keys = one.keys() | other.keys()
    return {key for key in keys if one.get(key) != other.get(key)} - {SEED}


def effective_changes(one: Settings, other: Settings) -> set[str]:
    """The same without settings that only change what a run logs and saves on its way."""
    return changed(one, other) - decisive((one, other), Affects.PROGRESS)


def single_change(one: Settings, other: Settings) -> str | None:
    """The one key by which two variants differ, None for several or none.

    Settings without effect on the result count only if nothing else differs.
    """
    keys = effective_changes(one, other) or changed(one, other)
    return next(iter(keys)) if len(keys) == 1 else None


def shown(value: Any) -> str:
    """A setting's value as a study's file writes it."""
    if value is None:
        return "not set"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " + ".join(value)
    return json.dumps(value, ensure_ascii=False)


def flat(values: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted key, each after a prefix."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _all_equal(values: Iterable[Any]) -> bool:
    first, *rest = values
    return all(value == first for value in rest)


def _readable(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Describe data sources briefly, or in full where two different ones would look the same."""
    brief = {name: [_brief(source) for source in sources] for name, sources in values.items()}
    pairs = [(values[name], text) for name, text in brief.items()]
    if all((a == b) == (m == n) for a, m in pairs for b, n in pairs):
        return brief
    return {name: [_in_full(source) for source in sources] for name, sources in values.items()}


def _brief(source: Source) -> str:
    details = [f"× {source.weight:g}"] if source.weight != 1 else []
    if source.max_rows:
        details.append(f"at most {source.max_rows:,} rows")
    details += [f"{name}: {value}" for name, value in source.vars.items()]
    return f"{source.label} ({', '.join(details)})" if details else source.label


def _in_full(source: Source) -> str:
    rest = source.model_dump(mode="json", exclude_defaults=True)
    kept = {key: value for key, value in rest.items() if key not in ("label", "vars", "weight")}
    return f"{_brief(source)} {json.dumps(kept, ensure_ascii=False)}"
