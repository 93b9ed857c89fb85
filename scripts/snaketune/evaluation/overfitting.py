"""Which kept checkpoint is the best, and where over-fitting starts: rules on a report.

A checkpoint is worse than an earlier model by a probe if the two 95 % intervals do not overlap;
by the held-out loss if it is above the lowest before it by more than `loss_margin`. Over-fitting
starts at the first checkpoint that is worse and is followed by worse ones only: a figure that
recovers is no signal.

The best checkpoint is the nearest to what the probes want: the mean over probes of the distance
between figure and wanted value, where a probe with several figures counts once. How answers end and
repeat themselves depends on where they are cut and does not count here. The held-out loss decides
between equals and where there are no probes; then the earlier checkpoint.

The merged model stands for its iteration where that checkpoint itself is not measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from snaketune.evaluation.evaluation_record import (
    BASE,
    MERGED,
    BestCheckpoint,
    CheckpointVerdict,
    EarlierValue,
    EvaluationRecord,
    Overfitting,
    OverfittingSignal,
    ProbeFigure,
)
from snaketune.experiment.probe_kinds import DEGENERATION_METRICS, worsened_words
from snaketune.scoring.estimate import Estimate
from snaketune.scoring.significance import loss_margin
from snaketune.training.train_record import ValidationRow

HELDOUT = "heldout"
"""The figure's name of the held-out loss in a signal."""

_KEEP_MORE = "A smaller train.save_every and a larger train.keep keep more checkpoints."
_MEASURE_THEM = "evaluate.checkpoints: true measures the kept ones."


@dataclass(frozen=True)
class _Curves:
    """What the rules look at.

    Attributes:
        models: Iterations by model, in their order: base, the kept checkpoints and, where its own
            checkpoint is not among them, merged.
        merged_iteration: The iteration that the merged model is of.
        figures: Those with a wanted value, also of how answers end and repeat themselves.
        loss_curve: Held-out loss by iteration, 0 is the base; in between as measured in training.
    """

    models: dict[str, int]
    merged_iteration: int
    figures: dict[str, ProbeFigure]
    losses: dict[str, float | None]
    loss_curve: dict[int, float]

    @property
    def kept(self) -> dict[str, int]:
        """The measured checkpoints with their iterations."""
        return {name: n for name, n in self.models.items() if name not in (BASE, MERGED)}

    @property
    def probes(self) -> dict[str, ProbeFigure]:
        """The figures of probes alone."""
        return {n: row for n, row in self.figures.items() if n not in DEGENERATION_METRICS}

    @property
    def end(self) -> int:
        """The last iteration with any figure."""
        return max([*self.models.values(), *self.loss_curve])


def judge_checkpoints(
    record: EvaluationRecord, validation: Iterable[ValidationRow]
) -> CheckpointVerdict:
    """Find the best checkpoint and the start of over-fitting, if there is one.

    Args:
        record: Its `checkpoints` are not read.
        validation: The rows of validation.jsonl.
    """
    curves = _curves(record, validation)
    best = _best(curves)
    margin = loss_margin(record.heldout[BASE].supervised_tokens)
    signals = [_probe_signal(name, row, curves.models) for name, row in curves.figures.items()]
    found = [signal for signal in [*signals, _loss_signal(curves.loss_curve, margin)] if signal]
    found.sort(key=lambda signal: signal.since)
    merged = (name for name, n in curves.kept.items() if n == curves.merged_iteration)
    return CheckpointVerdict(
        loss_margin=margin,
        result=next(merged, None),
        best=best,
        overfitting=Overfitting(iteration=found[0].since, signs=found) if found else None,
        sentence=_sentence(curves, best, found),
    )


def is_worse(figure: Estimate, than: Estimate, wanted: float) -> bool:
    """Whether a figure is further from the wanted value than another, their intervals apart."""
    return figure.high < than.low if wanted else figure.low > than.high


def _curves(record: EvaluationRecord, validation: Iterable[ValidationRow]) -> _Curves:
    kept = {model.name: model.iteration for model in record.models[1:-1]}
    last = record.models[-1].iteration
    models = {BASE: 0, **kept} | ({} if last in kept.values() else {MERGED: last})
    models = dict(sorted(models.items(), key=lambda model: model[1]))
    losses = {name: row.loss for name, row in record.heldout.items()}
    curve = {row.iteration: row.heldout_loss for row in validation}
    # the losses measured here win: training measures with its own precision
    curve |= {n: loss for name, n in models.items() if (loss := losses[name]) is not None}
    figures = {name: row for name, row in record.probes.items() if row.wanted is not None}
    return _Curves(models, last, figures, losses, dict(sorted(curve.items())))


def _probe_signal(
    name: str, row: ProbeFigure, models: Mapping[str, int]
) -> OverfittingSignal | None:
    """From where on a probe's figure is worse than at an earlier model, and than which."""
    order, wanted, figures = list(models), row.wanted or 0.0, row.by_model
    worse = [
        any(is_worse(figures[model], figures[earlier], wanted) for earlier in order[:index])
        for index, model in enumerate(order)
    ]
    first = _last_run(worse)
    if first is None:
        return None
    start = figures[order[first]]
    better = [model for model in order[:first] if is_worse(start, figures[model], wanted)]
    than = min(better, key=lambda model: abs(figures[model].value - wanted))
    values = [figures[model].value for model in order[first:]]
    earlier = EarlierValue(iteration=models[than], value=figures[than].value)
    return _overfitting_signal(name, models[order[first]], values, earlier)


def _loss_signal(curve: Mapping[int, float], margin: float) -> OverfittingSignal | None:
    """From where on the held-out loss is above its lowest to the end."""
    iterations, losses = list(curve), list(curve.values())
    above = [loss > min(losses[: index + 1]) + margin for index, loss in enumerate(losses)]
    first = _last_run(above)
    if first is None:
        return None
    lowest = min(losses[:first])
    than = EarlierValue(iteration=iterations[losses.index(lowest)], value=lowest)
    return _overfitting_signal(HELDOUT, iterations[first], losses[first:], than)


def _overfitting_signal(
    figure: str, since: int, values: Sequence[float], than: EarlierValue
) -> OverfittingSignal:
    return OverfittingSignal(
        figure=figure, since=since, lowest=min(values), highest=max(values), than=than
    )


def _last_run(flags: Sequence[bool]) -> int | None:
    """Where the flags that are true to the end begin, None if the last is false."""
    first = len(flags)
    while first and flags[first - 1]:
        first -= 1
    return first if first < len(flags) else None


def _best(curves: _Curves) -> BestCheckpoint | None:
    kept, probes, losses = curves.kept, curves.probes, curves.losses
    has_loss = any(losses[name] is not None for name in kept)
    if not kept or not (probes or has_loss):
        return None
    distances = {name: _distance(name, probes) for name in kept}
    best = min(kept, key=lambda name: (distances[name], losses[name] or 0, kept[name]))
    equal = list(distances.values()).count(distances[best]) > 1
    close = [
        other
        for other in kept
        if other != best
        and not any(
            is_worse(row.by_model[other], row.by_model[best], row.wanted or 0.0)
            for row in probes.values()
        )
    ]
    return BestCheckpoint(
        name=best,
        iteration=kept[best],
        decided_by=HELDOUT if has_loss and (equal or not probes) else "probes",
        distance=distances[best] if probes else None,
        loss=losses[best],
        close=close if probes else [],
    )


def _distance(model: str, probes: Mapping[str, ProbeFigure]) -> float:
    """Mean distance from the wanted values, of figures in 0..1; 0 without probes."""
    names = sorted(probes, key=_probe)
    means = [
        fmean(
            abs(probes[name].by_model[model].value - (probes[name].wanted or 0.0)) for name in own
        )
        for _, own in groupby(names, key=_probe)
    ]
    # rounded, as 0.1 + 0.2 and 0.2 + 0.1 differ in floats and are equally near
    return round(fmean(means), 9) if means else 0.0


def _probe(figure: str) -> str:
    """The probe of a figure: `qa` of `qa.token_f1`."""
    return figure.partition(".")[0]


def _sentence(
    curves: _Curves, best: BestCheckpoint | None, signals: Sequence[OverfittingSignal]
) -> str:
    if not signals and not curves.probes and len(curves.loss_curve) < 2:
        return (
            "Over-fitting cannot be judged: there are neither probes (evaluate.probes) nor "
            "held-out rows (evaluate.heldout)."
        )
    findings = _signals_in_words(signals, curves.end) if signals else _no_signal_in_words(curves)
    if len(curves.kept) > 1 and best:
        return f"{findings} {_best_in_words(best, curves)}"
    return f"{findings} {_few_in_words(curves)}".rstrip()


def _few_in_words(curves: _Curves) -> str:
    """What one measured checkpoint or none leaves open; the losses of training may tell."""
    kept, has_curve = curves.kept, len(curves.loss_curve) > 2
    if len(kept) > 1 or (has_curve and not curves.probes):
        return ""
    few = f"Only iteration {max(kept.values())} is" if kept else "No checkpoint is"
    what = "at which iteration a probe becomes worse" if has_curve else "where over-fitting starts"
    return f"{few} measured, so {what} cannot be seen. {_KEEP_MORE if kept else _MEASURE_THEM}"


def _signals_in_words(signals: Sequence[OverfittingSignal], last: int) -> str:
    parts = []
    for signal in signals:
        first, than = signal.since, signal.than
        where = f"at iteration {last}" if first == last else f"from iteration {first} on"
        before = f"iteration {than.iteration}" if than.iteration else "base"
        value = _number(signal.figure, than.value)
        parts.append(f"{where} {_figure_in_words(signal)} ({before}: {value})")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _figure_in_words(signal: OverfittingSignal) -> str:
    low, high = (_number(signal.figure, value) for value in (signal.lowest, signal.highest))
    spread = high if low == high else f"{low.removesuffix(' %')}–{high}"
    if signal.figure == HELDOUT:
        return f"the held-out loss is {spread}, above its lowest"
    return worsened_words(signal.figure).format(spread)


def _number(figure: str, value: float) -> str:
    return f"{value:.3f}" if figure == HELDOUT else f"{100 * value:.0f} %"


def _no_signal_in_words(curves: _Curves) -> str:
    reasons, curve = [], curves.loss_curve
    if curves.probes:
        reasons.append("no probe is worse than before, beyond the 95 % intervals")
    if len(curve) > 1:
        lowest = min(curve, key=curve.__getitem__)
        whose = f"iteration {lowest}" if lowest else "base"
        now, best = (_number(HELDOUT, curve[iteration]) for iteration in (max(curve), lowest))
        below = "which is its lowest" if now == best else f"its lowest is {best} ({whose})"
        reasons.append(f"the held-out loss is {now}, {below}")
    return f"No over-fitting at iteration {curves.end}: {', and '.join(reasons)}."


def _best_in_words(best: BestCheckpoint, curves: _Curves) -> str:
    figures = [
        f"{name} {_number(name, row.by_model[best.name].value)}"
        for name, row in curves.probes.items()
    ]
    if best.decided_by == HELDOUT:
        figures.append(f"held-out loss {_number(HELDOUT, best.loss or 0.0)}")
    text = f"Iteration {best.iteration} is the best kept checkpoint ({', '.join(figures)})"
    if best.close:
        others = _iterations([curves.kept[name] for name in best.close])
        text += f"; by the probes' intervals it is no better than {others}"
    merged = curves.merged_iteration
    made = "" if best.iteration == merged else f" The merged model is of iteration {merged}."
    return f"{text}.{made}"


def _iterations(numbers: Sequence[int]) -> str:
    *rest, last = map(str, numbers)
    return f"iterations {', '.join(rest)} and {last}" if rest else f"iteration {last}"
