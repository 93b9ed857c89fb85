"""The evaluation page: answers of all models, curves over the checkpoints, figures."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from snaketune.core.pages import LINE, TEXT, percent, plot, render
from snaketune.evaluation.differences import mark_differences
from snaketune.evaluation.evaluation_record import (
    BASE,
    MERGED,
    EvaluationRecord,
    ProbedQuestion,
    ProbeFigure,
)
from snaketune.experiment.probe_kinds import figure_meaning
from snaketune.training.train_record import MetricsRow, SampleRow, ValidationRow


class Plot(NamedTuple):
    """A figure of the page."""

    caption: str
    svg: str


def html(
    record: EvaluationRecord,
    metrics: Sequence[MetricsRow],
    samples: Sequence[SampleRow],
    validation: Sequence[ValidationRow],
    probed: Sequence[ProbedQuestion],
    resolved: str,
) -> str:
    """Render the page.

    Args:
        record: The content of report.json.
        probed: The rows of probes.jsonl.
        resolved: The text of resolved.yaml.
    """
    meanings = describe_metrics(record.probes, probed)
    return render(
        "evaluation/evaluation_report.html.jinja",
        record.experiment,
        report=record,
        labels=labels(record),
        mark_differences=mark_differences,
        over_checkpoints=over_checkpoints(record, validation, meanings),
        plots=curves(metrics) if metrics else [],
        samples=by_prompt(samples),
        meanings=meanings,
        probed=probed,
        resolved=resolved,
    )


def labels(record: EvaluationRecord) -> dict[str, str]:
    """Each model's name on the page; the merged model's own checkpoint is marked as not merged."""
    result = record.checkpoints.result if record.checkpoints else None
    return {
        model.name: model.name
        if model.name in (BASE, MERGED)
        else f"iteration {model.iteration}{', not merged' if model.name == result else ''}"
        for model in record.models
    }


def over_checkpoints(
    record: EvaluationRecord, validation: Sequence[ValidationRow], meanings: dict[str, str]
) -> list[Plot]:
    """Every probe's figure and the held-out loss from the base to the end of training.

    Nothing where no checkpoint was measured.

    Args:
        meanings: By figure, what `describe_metrics` returned.
    """
    models = {model.name: model.iteration for model in record.models[:-1]}
    if len(models) < 2:
        return []
    plots = [
        Plot(_caption(name, meanings[name], row.wanted), _figure_curve(name, models, row))
        for name, row in record.probes.items()
    ]
    losses = [loss for name in models if (loss := record.heldout[name].loss) is not None]
    if len(losses) == len(models):
        plots.append(Plot("Held-out loss", _loss_curve([*models.values()], losses, validation)))
    return plots


def _caption(name: str, meaning: str, wanted: float | None) -> str:
    aim = "" if wanted is None else f"; wanted: {percent(wanted)}"
    return f"{name}: {meaning}{aim}".replace(" %", "\u00a0%")


def _figure_curve(name: str, models: dict[str, int], row: ProbeFigure) -> str:
    iterations, estimates = list(models.values()), [row.by_model[model] for model in models]
    values = [estimate.value for estimate in estimates]
    # rounding may put an end of an interval a hair beyond its value, which matplotlib refuses
    spread = [
        [max(0.0, estimate.value - estimate.low) for estimate in estimates],
        [max(0.0, estimate.high - estimate.value) for estimate in estimates],
    ]

    def draw(axes: Axes) -> None:
        if row.wanted is not None:
            axes.axhline(row.wanted, linestyle=":", color=TEXT, linewidth=1)
            axes.set_ylim(-0.04, 1.04)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.errorbar(iterations, values, spread, color=LINE, marker=".", capsize=3, linewidth=1.4)

    return plot(f"checkpoints {name}", "iteration (0: base)", "", draw)


def _loss_curve(
    iterations: list[int], losses: Sequence[float], validation: Sequence[ValidationRow]
) -> str:
    in_training = (
        [row.iteration for row in validation],
        [row.heldout_loss for row in validation],
    )

    def draw(axes: Axes) -> None:
        axes.plot(*in_training, color=TEXT, linewidth=0.8)
        axes.plot(iterations, losses, color=LINE, marker=".", linewidth=1.4)

    return plot("checkpoints heldout", "iteration (0: base)", "loss", draw)


def describe_metrics(figures: Iterable[str], probed: Sequence[ProbedQuestion]) -> dict[str, str]:
    """What each figure says of an answer, in words.

    Args:
        figures: PROBE or PROBE.METRIC.
        probed: The rows of probes.jsonl, for the kinds of the probes.
    """
    kinds = {question.probe: question.kind for question in probed}
    return {name: figure_meaning(name, kinds.get(name.partition(".")[0], "")) for name in figures}


def curves(metrics: Sequence[MetricsRow]) -> list[Plot]:
    """The training's curves against the iteration."""
    updates = [row for row in metrics if row.update]
    return [
        Plot("Training loss of each update", _curve(updates, "update_loss", "loss")),
        Plot("Gradient norm before clipping", _curve(updates, "grad_norm", "norm")),
        Plot("Learning rate", _curve(metrics, "lr", "learning rate")),
        Plot("Tokens per second", _curve(metrics, "tokens_per_second", "tokens/s")),
    ]


def by_prompt(samples: Sequence[SampleRow]) -> dict[str, list[tuple[int, str]]]:
    """Each prompt's answers with their iterations, without those equal to the one before."""
    answers: dict[str, list[tuple[int, str]]] = {}
    for row in samples:
        own = answers.setdefault(row.prompt, [])
        if not own or own[-1][1] != row.answer:
            own.append((row.iteration, row.answer))
    return answers


def _curve(rows: Sequence[MetricsRow], key: str, label: str) -> str:
    points = [row.iteration for row in rows], [getattr(row, key) for row in rows]
    marker = "." if len(rows) < 60 else None  # more dots than that merge into a thick line
    return plot(
        key,
        "iteration",
        label,
        lambda axes: axes.plot(*points, color=LINE, linewidth=1.4, marker=marker),
    )
