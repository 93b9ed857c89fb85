"""The data report for people, as text and as a page."""

from functools import partial

from matplotlib.axes import Axes

from snaketune.core.pages import LINE, plot, render
from snaketune.data.data_record import ExperimentDataReport, SourceReport, TextPart


def report_text(report: ExperimentDataReport) -> str:
    """Format the report for a terminal."""
    train, heldout, training = report.train, report.heldout, report.training
    lines = [f"template {report.template}, max_length {report.max_length}", ""]
    for source in report.sources:
        lines += _source_lines(source)
    lines += [
        "",
        f"train:    {train.samples:,} samples, {train.tokens:,} tokens "
        f"({train.supervised_tokens:,} supervised), {train.packs:,} packs "
        f"filled to {train.fill_rate:.0%}",
        f"held out: {heldout.samples:,} samples, {heldout.tokens:,} tokens "
        f"({heldout.supervised_tokens:,} supervised)",
        f"training: {training.iterations:,} iterations, {training.updates:,} updates, "
        f"{training.checkpoints:,} checkpoints",
        f"lengths:  {_quantiles(train.length_quantiles)}",
        "",
        "The model learns from what is between ⟦ and ⟧:",
    ]
    for sample in report.samples:
        lines += ["", f"{sample.source}:", _bracketed(sample.parts).rstrip()]
    return "\n".join(lines) + "\n"


def report_html(name: str, report: ExperimentDataReport) -> str:
    """Render the report as a page."""
    edges, heights = report.histogram.edges, report.histogram.samples
    bars = partial(Axes.stairs, values=heights, edges=edges, fill=True, color=LINE)
    return render(
        "data/data_report.html.jinja",
        name,
        report=report,
        histogram=plot("lengths", "tokens", "samples", bars),
        losses=[loss for source in report.sources for loss in _losses(source)],
    )


def _bracketed(parts: list[TextPart]) -> str:
    return "".join(f"⟦{part.text}⟧" if part.learned else part.text for part in parts)


def _losses(source: SourceReport) -> list[tuple[str, str, list[str]]]:
    """List everything that was dropped or cut: (source, what, first places)."""
    name, rest, cut = source.source, source.unanswered, source.truncated
    losses = [
        (name, f"{dropped.samples:,} dropped: {reason}", dropped.first)
        for reason, dropped in source.dropped.items()
    ]
    if rest.samples:
        what = f"{rest.samples:,} lose what follows their last answer, as it has no answer"
        losses.append((name, what, rest.first))
    if cut.samples:
        what = f"{cut.samples:,} cut by {cut.tokens_cut:,} tokens in all, "
        losses.append((name, f"{what}{cut.answers_cut:,} within an answer", cut.first))
    return losses


def _source_lines(source: SourceReport) -> list[str]:
    lines = [
        f"{source.source}: {source.rows_read:,} rows read, "
        f"{source.samples_kept:,} samples kept ({source.samples_heldout:,} held out), "
        f"{source.samples_per_epoch:,} in an epoch"
    ]
    if source.duplicates:
        lines.append(f"  {source.duplicates:,} samples are duplicates of earlier ones")
    return lines + [f"  {what} ({', '.join(first)})" for _, what, first in _losses(source)]


def _quantiles(quantiles: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in quantiles.items()) + " tokens"
