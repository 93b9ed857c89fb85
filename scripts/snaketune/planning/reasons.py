"""Why a stage runs: the settings that changed, else the files, else the stages before it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from snaketune.experiment.affects import Affects, affecting
from snaketune.experiment.schema import Configuration
from snaketune.experiment.settings import flat, shown
from snaketune.planning.job import Job

Changes = Mapping[str, tuple[Any, Any]]
"""By dotted key, the value before and now."""

_LISTED = 2
"""How many files are named; of others the number is told."""

_OF_PARAMETER = {
    ("data_report", "train"): Affects.DATA_REPORT,
    ("merge", "export"): Affects.EXPORT,
    ("export_gguf", "dtype"): Affects.GGUF,
    ("fetch_base", "spec"): Affects.BASE,
}
"""The settings that a rule's parameter has, where its value does not name their section."""

_IDS = ("base", "data", "start", "tokenizer", "id", "ids")
"""Parameters with an id or a folder: they follow from others, which are told in words."""

_LONGEST = 60
"""Characters of a value."""


def reasons(job: Job, changes: Changes | None = None) -> list[str]:
    """Return why a job runs in plain words; empty if it never ran before.

    Args:
        changes: The settings that differ from those of its last result; by default they are found
            in the parameters that Snakemake remembers.
    """
    if job.always or "now" in job.now:
        return ["it runs each time"]
    found = told(parameters(job) if changes is None else changes)
    if job.environment:
        found.append("its software environment changed")
    return found or _files(job) or _others(job)


def told(changes: Changes) -> list[str]:
    """Return `key before -> now` for each setting."""
    lines = []
    for key, (before, now) in changes.items():
        if key.rpartition(".")[2] == "version":
            lines.append(f"this SnakeTune makes it in another way ({before} -> {now})")
        elif any(map(_is_table, (before, now))):
            lines.append(f"{key} changed")
        else:
            lines.append(f"{key} {_cut(shown(before))} -> {_cut(shown(now))}")
    return lines


def parameters(job: Job) -> dict[str, tuple[Any, Any]]:
    """Return what changed of a job's parameters, which are mostly canonical JSON."""
    before = [_parsed(value) for value in job.before]
    changes: dict[str, tuple[Any, Any]] = {}
    for name, value in job.now.items():
        new, key = _parsed(value), _section(job.rule, name)
        old = _counterpart(new, before)
        if isinstance(new, Mapping) and old is not None:
            section = f"{key.rstrip('.')}." if key else ""
            then, now = dict(flat(old, section)), dict(flat(new, section))
            both = {k: (then.get(k), now.get(k)) for k in then | now}
            changes |= {k: pair for k, pair in both.items() if pair[0] != pair[1]}
        elif name not in _IDS and old is not None:
            changes[key or name] = (old, new)
    repeated = {"prompts"} if "evaluate.prompts" in changes else set()
    left_out = {key for key, pair in changes.items() if key in _IDS and not _is_table(pair[1])}
    return {key: pair for key, pair in changes.items() if key not in left_out | repeated}


def _section(rule: str, parameter: str) -> str:
    """The section of a parameter's settings, such as `train.`, or the key of its only one."""
    if (rule, parameter) not in _OF_PARAMETER:
        return ""
    first, *others = sorted(affecting(Configuration, _OF_PARAMETER[rule, parameter]))
    return f"{first.partition('.')[0]}." if others else first


def _counterpart(new: Any, before: Sequence[Any]) -> Any:
    """Return the earlier value of a parameter, None if it cannot be told: they have no names."""
    if isinstance(new, Mapping):
        maps = [each for each in before if isinstance(each, Mapping)]
        return max(maps, key=lambda old: len(old.keys() & new.keys()), default=None)
    plain = [each for each in before if type(each) is type(new) and not _is_path(each)]
    return plain[0] if len(plain) == 1 and not _is_path(new) else None


def _files(job: Job) -> list[str]:
    if job.interrupted:
        return ["it was not finished"]
    found = []
    if job.made_before and job.missing:
        found.append(f"{_listed(job.missing)} {'are' if len(job.missing) > 1 else 'is'} missing")
    if job.made_before and job.touched:
        found.append(f"{_listed(job.touched)} changed")
    return found


def _others(job: Job) -> list[str]:
    if not job.made_before:
        return []
    if job.after:
        *others, last = (rule.replace("_", " ") for rule in job.after)
        return [f"of {', '.join(others)} and {last}" if others else f"of {last}"]
    if job.added:
        return [f"it now reads {_listed(job.added)}"]
    return [f"it no longer reads {_listed(job.removed)}"] if job.removed else []


def _listed(names: Sequence[str]) -> str:
    if len(names) > _LISTED:
        return f"{', '.join(names[:_LISTED])} and {len(names) - _LISTED} more"
    return " and ".join(names)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] == "{":
        try:
            return json.loads(value)
        except ValueError:
            pass
    return value


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, Mapping) for each in value)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "/" in value and ":" not in value
