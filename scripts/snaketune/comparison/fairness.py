"""The settings that make a comparison unfair, and a warning where they differ unnoticed.

Unnoticed is, for one of the seven fields below,

* a variant whose value differs from the first variant's while no variant differs from it in this
  field's keys alone: then other changes and this one cannot be told apart;
* a change of `method.r` alone, as it also changes the scale alpha / r;
* a value that differs although the settings are the same: the machine chose. So it is with the
  device, gradient checkpointing, attention and the versions of packages.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snaketune.comparison.collect import Collected
from snaketune.experiment.settings import effective_changes, shown


@dataclass(frozen=True)
class Field:
    """One of the seven: its name, the settings that decide it, and why it matters."""

    name: str
    keys: tuple[str, ...]
    why: str


FIELDS = (
    Field(
        "effective batch",
        ("train.batch_size", "train.accumulate", "train.processes"),
        "another number of packs in an update is another training at the same learning rate",
    ),
    Field(
        "scale of LoRA",
        ("method.name", "method.alpha", "method.r", "method.rslora"),
        "the update is multiplied by it, as if the learning rate were another",
    ),
    Field("target modules", ("method.name", "method.target_modules"), "other layers are trained"),
    Field("max_length", ("max_length",), "a pack, and with it an update, holds other tokens"),
    Field("truncation", ("truncation",), "other tokens of long samples are learned"),
    Field("packing", ("pack",), "an update holds another number of samples"),
    Field("precision", ("train.precision",), "rounding, time and memory are others"),
)

_PRECISION = {"bf16": "bfloat16", "fp32": "float32"}
"""What a run will say of its arithmetic; of `auto` nobody knows before."""


def field_values(found: Collected) -> dict[str, str | float | None]:
    """Return a variant's value of each field; None where nobody can know it yet."""
    settings, lora = found.settings, found.settings["method.name"] != "full"
    processes = found.chosen.get("processes", settings["train.processes"])
    batch = settings["train.batch_size"] * settings["train.accumulate"]
    precision = found.chosen.get("precision", _PRECISION.get(settings["train.precision"]))
    modules = settings["method.target_modules"]
    return {
        "effective batch": batch * processes if processes else None,
        "scale of LoRA": _scale(settings) if lora else "no LoRA",
        "target modules": (modules if isinstance(modules, str) else ", ".join(modules))
        if lora
        else "all weights",
        "max_length": settings["max_length"],
        "truncation": settings["truncation"],
        "packing": shown(settings["pack"]),
        "precision": precision,
    }


def warnings(variants: Sequence[Collected]) -> list[str]:
    """Return in words what differs unnoticed between variants, the first being the measure."""
    told = [text for each in FIELDS for text in _of_field(each, variants)]
    keys = dict.fromkeys(key for each in variants for key in each.chosen)
    others = [key for key in keys if key not in ("precision", "processes")]
    return told + [text for key in others for text in _of_machine(key, variants)]


def _scale(settings: Mapping[str, Any]) -> float:
    alpha, rank = settings["method.alpha"], settings["method.r"]
    return float(alpha / (math.sqrt(rank) if settings["method.rslora"] else rank))


def _of_field(each: Field, variants: Sequence[Collected]) -> list[str]:
    values = {found.name: field_values(found)[each.name] for found in variants}
    known = [found for found in variants if values[found.name] is not None]
    differing = [found for found in known[1:] if values[found.name] != values[known[0].name]]
    told: dict[str, list[str]] = {}
    for found in differing:
        if reason := _unnoticed(found, known[0], each, variants):
            text = f"{found.name} {values[found.name]}"
            told.setdefault(reason, []).append(text)
    return [
        f"{each.name}: {known[0].name} {values[known[0].name]}, {_listed(texts)}. {reason}: "
        f"{each.why}."
        for reason, texts in told.items()
    ]


def _unnoticed(
    found: Collected, first: Collected, each: Field, variants: Sequence[Collected]
) -> str:
    """Return why a difference may escape the reader, empty if it is what the variant is about."""
    by_setting = effective_changes(found.settings, first.settings)
    if not by_setting & set(each.keys):
        return "The settings are the same, so this was decided by the machine or a default"
    if by_setting == {"method.r"}:
        return "Only method.r was changed, and the scale alpha / r changed with it"
    for other in variants:
        between = effective_changes(found.settings, other.settings)
        if between and between <= set(each.keys):
            return ""
    return "Other settings differ too, and no variant differs in this alone"


def _of_machine(key: str, variants: Sequence[Collected]) -> list[str]:
    """Tell values that the machine chose differently for the same setting."""
    by_setting: dict[str, dict[str, list[str]]] = {}
    for found in variants:
        if key in found.chosen:
            setting = shown(found.settings.get(f"train.{key}"))
            values = by_setting.setdefault(setting, {})
            values.setdefault(shown(found.chosen[key]), []).append(found.name)
    return [
        f"{key.replace('_', ' ')}: "
        + "; ".join(f"{value} ({_listed(names)})" for value, names in values.items())
        + ". The settings are the same, so the machine or what is installed on it was another: "
        "times and memory are hard to compare."
        for values in by_setting.values()
        if len(values) > 1
    ]


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
