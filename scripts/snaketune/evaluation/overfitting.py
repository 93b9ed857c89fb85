"""Which kept checkpoint is the best, and from which on a model over-fits: rules on a report.

A checkpoint is worse than an earlier model by a probe if the two 95 % intervals do not overlap;
by the held-out loss if it is above the lowest before it by more than `loss_margin`. Over-fitting
begins with the first checkpoint that is worse, as are all after it: what comes and goes is none.

The best checkpoint is the nearest to what the probes want: the mean over probes of the distance
between figure and aim, a probe with several figures counting once; how answers end and repeat
themselves depends on where they are cut, and counts for nothing here. The held-out loss decides
where two are equally near or there are no probes; then the earlier one.

The merged model stands for its iteration where that checkpoint itself is not measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

from snaketune.experiment.probe_files import DEGENERATION_METRICS
from snaketune.scoring.significance import loss_margin

_TOLD = {
    "leak": "the persona leaks into {} of unrelated answers",
    "identity": "the persona's name is in only {} of the answers that should have it",
    "repetition": "answers repeat {} of their 4-grams",
    "never_stops": "the share of answers that do not end is {}",
    "retention": "only {} of the general questions are answered right",
}

_MORE = "A smaller train.save_every and a larger train.keep keep more checkpoints."
_NONE_ASKED = "evaluate.checkpoints: true measures those that are kept."


def verdict(report: Mapping[str, Any], validated: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what report.json says of the checkpoints.

    Args:
        report: With `models`, `probes` and `heldout`.
        validated: The rows of validation.jsonl.

    Returns:
        `result`: the name of the checkpoint that merged was made of, or None. `best`: `name`,
        `iteration`, `decided_by` (`probes` or `heldout`), `distance`, `loss`, and the names `close`
        to it, than which no probe shows it better; or None. `overfitting`: `iteration` and its
        `signs`, each with the figure's name, `from` which iteration, `lowest` and `highest` from
        there on, and the iteration and value it is worse `than`; or None. `sentence`: all that.
        `loss_margin`: the one in force.
    """
    kept = {row["name"]: row["iteration"] for row in report["models"][1:-1]}
    last = report["models"][-1]["iteration"]
    losses = {name: row["loss"] for name, row in report["heldout"].items()}
    probes = {name: row for name, row in report["probes"].items() if row["wanted"] is not None}
    models = {"base": 0, **kept} | ({} if last in kept.values() else {"merged": last})
    models = dict(sorted(models.items(), key=lambda model: model[1]))
    asked = {name: row for name, row in probes.items() if name not in DEGENERATION_METRICS}
    best = _best(kept, asked, losses)
    curve = _loss_curve(models, losses, validated)
    found = (_sign(name, row, models) for name, row in probes.items())
    signs = [sign for sign in found if sign]
    margin = loss_margin(report["heldout"]["base"]["supervised_tokens"])
    signs += _rises(curve, margin)
    signs.sort(key=lambda sign: sign["from"])
    return {
        "loss_margin": margin,
        "result": next((name for name, iteration in kept.items() if iteration == last), None),
        "best": best,
        "overfitting": {"iteration": signs[0]["from"], "signs": signs} if signs else None,
        "sentence": _sentence(models, last, asked, curve, best, signs),
    }


def is_worse(figure: Mapping[str, float], than: Mapping[str, float], wanted: float) -> bool:
    """Return whether a figure is on the far side of another, their intervals apart."""
    return figure["high"] < than["low"] if wanted else figure["low"] > than["high"]


def _sign(name: str, row: Mapping[str, Any], models: Mapping[str, int]) -> dict[str, Any] | None:
    """Return from where on a probe's figure is worse than at an earlier model, and which."""
    order, wanted = list(models), row["wanted"]
    worse = [
        any(is_worse(row[model], row[earlier], wanted) for earlier in order[:index])
        for index, model in enumerate(order)
    ]
    first = _last_run(worse)
    if first is None:
        return None
    better = [each for each in order[:first] if is_worse(row[order[first]], row[each], wanted)]
    than = min(better, key=lambda model: abs(row[model]["value"] - wanted))
    values = [row[model]["value"] for model in order[first:]]
    return _as_sign(name, models[order[first]], values, models[than], row[than]["value"])


def _rises(curve: Mapping[int, float], margin: float) -> list[dict[str, Any]]:
    """Return the sign that the held-out loss is above its lowest to the end, if it is."""
    iterations, losses = list(curve), list(curve.values())
    above = [loss > min(losses[: index + 1]) + margin for index, loss in enumerate(losses)]
    first = _last_run(above)
    if first is None:
        return []
    lowest = min(losses[:first])
    than = iterations[losses.index(lowest)]
    return [_as_sign("heldout", iterations[first], losses[first:], than, lowest)]


def _as_sign(
    name: str, iteration: int, values: Sequence[float], than: int, value: float
) -> dict[str, Any]:
    return {
        "figure": name,
        "from": iteration,
        "lowest": min(values),
        "highest": max(values),
        "than": {"iteration": than, "value": value},
    }


def _last_run(flags: Sequence[bool]) -> int | None:
    """Return where the flags that are true to the end begin."""
    first = len(flags)
    while first and flags[first - 1]:
        first -= 1
    return first if first < len(flags) else None


def _loss_curve(
    models: Mapping[str, int],
    losses: Mapping[str, float | None],
    validated: Iterable[Mapping[str, Any]],
) -> dict[int, float]:
    """Return the held-out loss by iteration, 0 is the base; in between as measured in training."""
    found = {row["iteration"]: row["heldout_loss"] for row in validated}
    for name, iteration in models.items():
        if (loss := losses[name]) is not None:
            found[iteration] = loss
    return dict(sorted(found.items()))


def _best(
    kept: Mapping[str, int],
    probes: Mapping[str, Mapping[str, Any]],
    losses: Mapping[str, float | None],
) -> dict[str, Any] | None:
    has_loss = any(losses[name] is not None for name in kept)
    if not kept or not (probes or has_loss):
        return None
    distances = {name: _distance(name, probes) for name in kept}
    name = min(kept, key=lambda each: (distances[each], losses[each] or 0, kept[each]))
    equal = list(distances.values()).count(distances[name]) > 1
    close = [
        other
        for other in kept
        if other != name
        and not any(is_worse(row[other], row[name], row["wanted"]) for row in probes.values())
    ]
    return {
        "name": name,
        "iteration": kept[name],
        "decided_by": "heldout" if has_loss and (equal or not probes) else "probes",
        "distance": distances[name] if probes else None,
        "loss": losses[name],
        "close": close if probes else [],
    }


def _distance(model: str, probes: Mapping[str, Mapping[str, Any]]) -> float:
    """Return the mean distance from what is wanted, of figures in 0..1; 0 without probes."""
    names = sorted(probes, key=_probe)
    means = [
        fmean(abs(probes[name][model]["value"] - probes[name]["wanted"]) for name in figures)
        for _, figures in groupby(names, key=_probe)
    ]
    return round(fmean(means), 9) if means else 0.0  # 0.1 + 0.2 and 0.2 + 0.1 are equally near


def _probe(figure: str) -> str:
    """Return the probe of a figure: `qa` of `qa.token_f1`."""
    return figure.partition(".")[0]


def _sentence(
    models: Mapping[str, int],
    last: int,
    probes: Mapping[str, Mapping[str, Any]],
    curve: Mapping[int, float],
    best: Mapping[str, Any] | None,
    signs: Sequence[Mapping[str, Any]],
) -> str:
    if not signs and not probes and len(curve) < 2:
        return (
            "Whether the model over-fits cannot be seen: there are neither probes "
            "(evaluate.probes) nor held-out rows (evaluate.heldout)."
        )
    end = max([*models.values(), *curve])
    told = _signs_in_words(signs, end) if signs else _nothing_seen(end, probes, curve)
    kept = {name: n for name, n in models.items() if name not in ("base", "merged")}
    if len(kept) > 1 and best:
        return f"{told} {_best_in_words(best, kept, last, probes)}"
    return f"{told} {_few_in_words(kept, probes, curve)}".rstrip()


def _few_in_words(
    kept: Mapping[str, int], probes: Mapping[str, Mapping[str, Any]], curve: Mapping[int, float]
) -> str:
    """Return what at most one measured checkpoint leaves open; the losses of training may tell."""
    seen = len(curve) > 2
    if len(kept) > 1 or (seen and not probes):
        return ""
    few = f"Only iteration {max(kept.values())}" if kept else "No checkpoint"
    what = "from when on a probe is worse" if seen else "when over-fitting begins"
    return f"{few} is measured: {what} cannot be seen. {_MORE if kept else _NONE_ASKED}"


def _signs_in_words(signs: Sequence[Mapping[str, Any]], last: int) -> str:
    parts = []
    for sign in signs:
        first, than = sign["from"], sign["than"]
        where = f"at iteration {last}" if first == last else f"from iteration {first} on"
        before = f"iteration {than['iteration']}" if than["iteration"] else "base"
        value = _number(sign["figure"], than["value"])
        parts.append(f"{where} {_figure_in_words(sign)} ({before}: {value})")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _figure_in_words(sign: Mapping[str, Any]) -> str:
    name = sign["figure"]
    low, high = (_number(name, sign[key]) for key in ("lowest", "highest"))
    spread = high if low == high else f"{low.removesuffix(' %')}–{high}"
    if name == "heldout":
        return f"the held-out loss is {spread}, above its lowest"
    return _TOLD.get(name, f"{name} is {{}}").format(spread)


def _number(figure: str, value: float) -> str:
    return f"{value:.3f}" if figure == "heldout" else f"{100 * value:.0f} %"


def _nothing_seen(
    last: int, probes: Mapping[str, Mapping[str, Any]], curve: Mapping[int, float]
) -> str:
    reasons = []
    if probes:
        reasons.append("no probe is worse there than before, beyond the 95 % intervals")
    if len(curve) > 1:
        lowest = min(curve, key=curve.__getitem__)
        whose = f"iteration {lowest}" if lowest else "base"
        end = max(curve)
        now, then = (_number("heldout", curve[each]) for each in (end, lowest))
        below = "which is its lowest" if now == then else f"its lowest is {then} ({whose})"
        reasons.append(f"the held-out loss is {now}, {below}")
    return f"No over-fitting is seen at iteration {last}: {', and '.join(reasons)}."


def _best_in_words(
    best: Mapping[str, Any],
    kept: Mapping[str, int],
    last: int,
    probes: Mapping[str, Mapping[str, Any]],
) -> str:
    name = best["name"]
    figures = [f"{each} {_number(each, row[name]['value'])}" for each, row in probes.items()]
    if best["decided_by"] == "heldout":
        figures.append(f"held-out loss {_number('heldout', best['loss'])}")
    text = f"Iteration {best['iteration']} is the best kept checkpoint ({', '.join(figures)})"
    if best["close"]:
        others = _iterations([kept[each] for each in best["close"]])
        text += f"; by the probes' intervals it is no better than {others}"
    made = "" if best["iteration"] == last else f" The merged model is of iteration {last}."
    return f"{text}.{made}"


def _iterations(numbers: Sequence[int]) -> str:
    *rest, last = map(str, numbers)
    return f"iterations {', '.join(rest)} and {last}" if rest else f"iteration {last}"
