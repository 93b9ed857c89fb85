"""The study's page: findings, settings, figures, curves and answers side by side."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from snaketune.comparison.collect import Collected
from snaketune.comparison.comparison_report import probes
from snaketune.comparison.fairness import FIELDS
from snaketune.comparison.figures import COSTS, interval, label, number
from snaketune.comparison.groups import value_of
from snaketune.core.pages import LINES, plot, render
from snaketune.experiment.settings import shown

POINTS = 200
"""Points of a curve; of more updates, equal runs of them are averaged."""

FEW = 4
"""Variants whose answers stand in columns; of more, equal answers are told once."""

OPEN_FINDINGS = 12
"""Findings that are shown; of more, those with the first variant are, the others are folded."""

_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

_DASH_ARRAYS = ("none", "7 3", "2 2", "8 3 2 3")
"""The same for the legend's lines."""

Cell = dict[str, Any]


def html(report: dict[str, Any], variants: Sequence[Collected]) -> str:
    """Return the page.

    Args:
        report: The content of report.json.
        variants: What it was built of, with the curves.
    """
    trained = [found for found in variants if found.updates]
    return render(
        "comparison/comparison.html.jinja",
        f"{report['study']}: comparison",
        report=report,
        few=len(variants) <= FEW,
        names=[found.name for found in variants],
        shown=shown,
        states=_states(report),
        findings=_sorted_findings(report),
        fields=_fields(report),
        quality=_quality(report, variants),
        costs=_costs(report, variants),
        repeated=_repeated(report),
        plots=_plots(trained, variants) if trained else [],
        legend=[(name, *_style(place, _DASH_ARRAYS)) for place, name in _places(variants)],
        answers=_answers(variants),
        samples=_samples(report),
        data=_data(variants),
    )


def _states(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name} | found
        for name, found in report["variants"].items()
        if found["state"] != "complete"
    ]


def _sorted_findings(report: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return the findings that are shown and those that are folded."""
    found = report["findings"]
    if len(found) <= OPEN_FINDINGS:
        return found, []
    first = found[0]["from"]
    shown = [each for each in found if each["from"] == first]
    return shown, [each for each in found if each["from"] != first]


def _fields(report: dict[str, Any]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Return each of the seven fields with its values and the variants that have them."""
    result = []
    for field in FIELDS:
        values: dict[str, list[str]] = {}
        for name, fields in report["fields"].items():
            values.setdefault(_field_text(fields[field.name]), []).append(name)
        result.append((field.name, list(values.items())))
    return result


def _field_text(value: str | float | None) -> str:
    if value is None:
        return "not known yet"
    return value if isinstance(value, str) else f"{value:g}"


def _quality(report: dict[str, Any], variants: Sequence[Collected]) -> dict[str, Any]:
    """Return the table of what the variants brought: held-out loss and probes."""
    figures = ["heldout_loss", *probes(variants)]
    rows = [
        (found.name, [_cell(report, found, figure) for figure in figures]) for found in variants
    ]
    base = [_base_cell(figure, variants) for figure in figures]
    return {"figures": _heads(figures, variants), "base": base if any(base) else [], "rows": rows}


def _costs(report: dict[str, Any], variants: Sequence[Collected]) -> dict[str, Any]:
    """Return the table of what they cost: those figures that any variant has."""
    figures = [
        figure for figure in COSTS if any(value_of(found, figure) is not None for found in variants)
    ]
    rows = [
        (found.name, [_cell(report, found, figure) for figure in figures]) for found in variants
    ]
    return {"figures": _heads(figures, variants), "rows": rows}


def _heads(figures: Sequence[str], variants: Sequence[Collected]) -> list[tuple[str, str]]:
    """Return of each column its label, and what is wanted of a probe."""
    heads = []
    for figure in figures:
        goals = [
            found.probes[name]["wanted"]
            for found in variants
            if (name := figure.removeprefix("probe:")) in found.probes
        ]
        known = goals and goals[0] is not None
        heads.append((label(figure), f"wanted {number(figure, goals[0])}" if known else ""))
    return heads


def _cell(report: dict[str, Any], found: Collected, figure: str) -> Cell:
    value = value_of(found, figure)
    cell = {"figure": figure, "variant": found.name, "text": "–", "small": "", "best": False}
    if value is None:
        return cell
    small = ""
    if figure.startswith("probe:"):
        merged = found.probes[figure.removeprefix("probe:")]["merged"]
        small = f"{interval(merged['low'], merged['high'])} n = {merged['n']:.0f}"
    elif figure == "heldout_loss" and found.heldout["base"]["loss"] is not None:
        small = f"base {number(figure, found.heldout['base']['loss'])}"
    best = found.name in report["best"].get(figure, [])
    return cell | {"text": number(figure, value), "small": small, "best": best}


def _base_cell(figure: str, variants: Sequence[Collected]) -> Cell | None:
    """Return the base model's result of a probe, if all variants say the same of it."""
    name = figure.removeprefix("probe:")
    told = [found.probes[name]["base"] for found in variants if name in found.probes]
    if not told or any(each != told[0] for each in told):
        return None
    small = interval(told[0]["low"], told[0]["high"])
    return {"text": number(figure, told[0]["value"]), "small": small}


def _repeated(report: dict[str, Any]) -> dict[str, Any]:
    groups = report["repeated"]
    figures = list(dict.fromkeys(figure for group in groups for figure in group["figures"]))
    rows = [
        (group["name"], [_spread_cell(figure, group) for figure in figures]) for group in groups
    ]
    return {"figures": [label(figure) for figure in figures], "rows": rows}


def _spread_cell(figure: str, group: dict[str, Any]) -> Cell | None:
    each = group["figures"].get(figure)
    if each is None:
        return None
    runs, text = f"n = {each['n']}", number(figure, each["mean"])
    spread = f"± {number(figure, each['deviation'])}, {runs}" if each["n"] > 1 else runs
    return {"text": text, "small": spread, "figure": figure, "variant": group["name"]}


def _places(variants: Sequence[Collected]) -> list[tuple[int, str]]:
    """Return the place in the cycle of colours, and the name, of each variant with a curve."""
    return [(place, found.name) for place, found in enumerate(variants) if found.updates]


def _style(place: int, dashes: Sequence[Any]) -> tuple[int, Any]:
    """Return the number of a variant's colour, and its dashes, which change after each cycle."""
    return place % len(LINES), dashes[place // len(LINES) % len(dashes)]


def _plots(trained: Sequence[Collected], variants: Sequence[Collected]) -> list[tuple[str, str]]:
    """Return (caption, SVG) of the losses against iterations, tokens and time."""
    axes = {
        "iteration": ("iteration", "Training loss of each update, by iteration"),
        "tokens": ("tokens", "The same by tokens trained on"),
        "seconds": ("seconds of training", "The same by time"),
    }
    order = [found.name for found in variants]
    drawn = [(order.index(found.name), found.name, averaged(found.updates)) for found in trained]
    plots = [
        (caption, _plot(key, xlabel, "loss", drawn, key, "loss"))
        for key, (xlabel, caption) in axes.items()
    ]
    measured = [
        (place, found.name, found.validation)
        for place, found in enumerate(variants)
        if found.validation
    ]
    if measured:
        lines = "iteration", "heldout_loss"
        svg = _plot("heldout", "iteration", "held-out loss", measured, *lines)
        plots.append(("Held-out loss while training", svg))
    return plots


def _plot(
    name: str, xlabel: str, ylabel: str, lines: Sequence[tuple[int, str, Any]], x: str, y: str
) -> str:
    titles = {f"{name}-{place}": variant for place, variant, _ in lines}
    return plot(name, xlabel, ylabel, partial(_draw, name=name, lines=lines, x=x, y=y), titles)


def _draw(axes: Axes, name: str, lines: Sequence[tuple[int, str, Any]], x: str, y: str) -> None:
    width = 1.4 if len(lines) <= 10 else 0.8
    for place, _, rows in lines:
        colour, dashes = _style(place, _DASHES)
        [line] = axes.plot(
            [row[x] for row in rows],
            [row[y] for row in rows],
            color=LINES[colour],
            linestyle=dashes,
            linewidth=width,
            marker="." if len(rows) == 1 else None,
        )
        line.set_gid(f"{name}-{place}")


def averaged(updates: Sequence[dict[str, Any]], points: int = POINTS) -> list[dict[str, Any]]:
    """Return at most so many points: where there are more, each the mean loss of equally many.

    A point stands at the last of its updates.
    """
    size = -(-len(updates) // points)
    parts = [updates[start : start + size] for start in range(0, len(updates), size)]
    return [part[-1] | {"loss": sum(row["loss"] for row in part) / len(part)} for part in parts]


def _answers(variants: Sequence[Collected]) -> list[dict[str, Any]]:
    """Return each prompt with what base and merged models say to it."""
    prompts = dict.fromkeys(row["prompt"] for found in variants for row in found.answers)
    told: dict[str, dict[str, dict[str, str]]] = {
        prompt: {"base": {}, "merged": {}} for prompt in prompts
    }
    for found in variants:
        for row in found.answers:
            for model in ("base", "merged"):
                told[row["prompt"]][model][found.name] = row[model]
    return [
        models
        | {"prompt": prompt}
        | {"said": _said(models["merged"]), "bases": _said(models["base"])}
        for prompt, models in told.items()
    ]


def _said(answers: dict[str, str]) -> list[tuple[list[str], str]]:
    """Return the different answers, each with the names of all who gave it."""
    names: dict[str, list[str]] = {}
    for name, answer in answers.items():
        names.setdefault(answer, []).append(name)
    return [(each, answer) for answer, each in names.items()]


def _samples(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return each prompt's rows, with equal answers told once."""
    prompts: dict[str, list[dict[str, Any]]] = {}
    for row in report["samples"]:
        each = row | {"said": _said(row["answers"])}
        prompts.setdefault(row["prompt"], []).append(each)
    return prompts


def _data(variants: Sequence[Collected]) -> list[tuple[str, list[str], dict[str, Any]]]:
    """Return each processed data set: its id, the variants that train on it, and its report."""
    names: dict[str, list[str]] = {}
    for found in variants:
        names.setdefault(found.ids["data"], []).append(found.name)
    reports = {found.ids["data"]: found.data for found in variants}
    return [(each, names[each], reports[each]) for each in names]
