"""A plan as it is printed: what runs, why, and what it takes."""

from collections.abc import Iterator, Sequence

import psutil
from rich.text import Text

from snaketune.core.machine import gpus
from snaketune.planning.plan import Line, Plan

_NAMED = 4
"""Targets that the title names."""

_WIDEST = 60
"""Characters to which the reasons are aligned; a longer one takes what it needs."""


def lines(plan: Plan) -> Iterator[Text]:
    """Yield a plan as lines: one a stage, below each experiment what is its own."""
    more = len(plan.targets) - _NAMED
    title = [*plan.targets[:_NAMED], *([f"and {more} more"] if more > 0 else [])]
    yield Text(" ".join(title), style="bold")
    groups = {name: _aligned(_rows(plan, name)) for name in (None, *plan.experiments)}
    several = sum(map(bool, groups.values())) > 1
    for name, rows in groups.items():
        if several and rows:
            yield Text(f"  {name or 'shared'}", style="bold")
        for row in rows:
            yield Text(f"  {row}")
    yield Text(f"  {in_all(plan)}", style="red" if plan.disk > plan.free_bytes else "")


def _rows(plan: Plan, name: str | None) -> list[tuple[str, str, str]]:
    used = [what for owner, what in plan.reused if owner == name]
    reuse = [("reuse", ", ".join(dict.fromkeys(used)), "")] if used else []
    own = [line for line in plan.lines if line.experiment == name]
    return reuse + [(line.stage, _why(line), _cost(line)) for line in own]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows with columns as wide as their longest entry, up to a limit."""
    widths = [min(_WIDEST, max(map(len, column))) for column in zip(*rows, strict=True)]
    return [
        "  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _why(line: Line) -> str:
    why = f"because {'; '.join(line.reasons)}" if line.reasons else "for the first time"
    return "; ".join(filter(None, [why, line.note]))


def _cost(line: Line) -> str:
    cost = line.cost
    memory = f", memory about {size(cost.memory)}" if cost.memory else ""
    if cost.seconds is None:
        return f"time unknown ({cost.basis}){memory}"
    return f"about {duration(cost.seconds)} ({cost.basis}){memory}"


def in_all(plan: Plan) -> str:
    """Return the sums of a plan in words."""
    if not plan.lines:
        return "Nothing to do: all is there."
    known = f"about {duration(plan.seconds)}" if plan.seconds else "time unknown"
    unknown = ", ".join(dict.fromkeys(plan.unknown))
    parts = [f"in all {known}" + (f", and {unknown}" if unknown and plan.seconds else "")]
    if plan.memory:
        there = "" if gpus() else f" of {size(psutil.virtual_memory().total)}"
        parts.append(f"memory about {size(plan.memory)}{there}")
    free = f"{size(plan.free_bytes)} are free"
    short = ", which is too little" if plan.disk > plan.free_bytes else ""
    parts.append(f"disk about {size(plan.disk)}, {free}{short}" if plan.disk else free)
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds as `1 h 5 min`, `1 min 20 s` or `12 s`."""
    whole = max(1, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def size(count: int) -> str:
    """Return bytes in MiB, or from 1 GiB on in GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, count / 2**20):.0f} MiB"
