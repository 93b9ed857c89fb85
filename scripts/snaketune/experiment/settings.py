"""What differs between variants, by dotted key and with every default filled in."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from snaketune.experiment import Experiment
from snaketune.experiment.experiment import Source

Settings = dict[str, Any]

SEED = "train.seed"
NO_EFFECT = frozenset(
    {
        *("train.save_every", "train.keep", "train.log_every"),
        *("sample.every", "sample.prompts", "sample.max_new_tokens"),
    }
)
"""Shown when they differ, but a variant with one more of these still has a single change."""


def settings(experiment: Experiment) -> Settings:
    """Return an experiment's settings by dotted key; `data` and `model` are one each.

    The description is none. Data sources are those of the catalog, filled in.
    """
    config = experiment.config.model_dump(mode="json", exclude={"description", "data", "model"})
    model = experiment.config.model
    if not isinstance(model, str):
        model = " at ".join(filter(None, (model.source, model.revision)))
    return {"model": model, "data": experiment.sources} | dict(flat(config, ""))


def differing(variants: Mapping[str, Settings]) -> dict[str, dict[str, Any]]:
    """Return the keys whose values are not all equal, each with every variant's value.

    The values of `data` are lists of texts, one a source; the others are as configured.
    """
    keys = list(dict.fromkeys(key for each in variants.values() for key in each))
    found = {key: {name: each.get(key) for name, each in variants.items()} for key in keys}
    lines = {key: values for key, values in found.items() if not _all_equal(values.values())}
    described: dict[str, Any] = _readable(lines["data"]) if "data" in lines else {}
    return lines | ({"data": described} if described else {})


def changed(one: Settings, other: Settings, but: Collection[str] = ()) -> set[str]:
    """Return the keys by which two variants differ, leaving out some."""
    keys = one.keys() | other.keys()
    return {key for key in keys if one.get(key) != other.get(key)} - set(but)


def single_change(one: Settings, other: Settings) -> str | None:
    """Return the one key by which two variants differ, None if there are more or none.

    Seeds do not count, and keys without effect only where nothing else differs.
    """
    keys = changed(one, other, {SEED})
    keys = keys - NO_EFFECT or keys
    return next(iter(keys)) if len(keys) == 1 else None


def shown(value: Any) -> str:
    """Return a setting's value as a study's file writes it."""
    if value is None:
        return "not set"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
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


def _readable(values: dict[str, Any]) -> dict[str, list[str]]:
    """Describe data sources shortly, or in full where the short words say the same of two."""
    short = {name: [_source(each) for each in sources] for name, sources in values.items()}
    pairs = [(values[name], text) for name, text in short.items()]
    if all((a == b) == (m == n) for a, m in pairs for b, n in pairs):
        return short
    return {name: [_in_full(each) for each in sources] for name, sources in values.items()}


def _source(source: Source) -> str:
    told = [f"× {source.weight:g}"] if source.weight != 1 else []
    if source.max_rows:
        told.append(f"at most {source.max_rows:,} rows")
    told += [f"{name}: {value}" for name, value in source.vars.items()]
    return f"{source.label} ({', '.join(told)})" if told else source.label


def _in_full(source: Source) -> str:
    rest = source.model_dump(mode="json", exclude_defaults=True)
    kept = {key: value for key, value in rest.items() if key not in ("label", "vars", "weight")}
    return f"{_source(source)} {json.dumps(kept, ensure_ascii=False)}"
