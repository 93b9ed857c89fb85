"""The data report for people, as text and as a page, with what training will come to."""

from functools import partial
from typing import Any

from matplotlib.axes import Axes

from snaketune.core.pages import LINE, plot, render
from snaketune.experiment.schema import Train


def with_training(report: dict[str, Any], train: Train) -> dict[str, Any]:
    """Return the report with what this data and these settings will come to, on one device."""
    _, iterations = train.iterations(report["train"]["packs"])
    training = {
        "iterations": iterations,
        "updates": -(-iterations // train.accumulate),
        "checkpoints": -(-iterations // train.save_every),
    }
    return report | {"training": training}


def report_text(report: dict[str, Any]) -> str:
    """Return the report for a terminal."""
    train, heldout = report["train"], report["heldout"]
    lines = [f"template {report['template']}, max_length {report['max_length']}", ""]
    for source in report["sources"]:
        lines += _source_lines(source)
    lines += [
        "",
        f"train:    {train['samples']:,} samples, {train['tokens']:,} tokens "
        f"({train['supervised_tokens']:,} supervised), {train['packs']:,} packs "
        f"filled to {train['fill_rate']:.0%}",
        f"held out: {heldout['samples']:,} samples, {heldout['tokens']:,} tokens "
        f"({heldout['supervised_tokens']:,} supervised)",
        f"training: {report['training']['iterations']:,} iterations, "
        f"{report['training']['updates']:,} updates, "
        f"{report['training']['checkpoints']:,} checkpoints",
        f"lengths:  {_quantiles(train['length_quantiles'])}",
        "",
        "What the model learns from stands between ⟦ and ⟧:",
    ]
    for sample in report["samples"]:
        lines += ["", f"{sample['source']}:", _bracketed(sample["parts"]).rstrip()]
    return "\n".join(lines) + "\n"


def report_html(name: str, report: dict[str, Any]) -> str:
    """Return the report as a page."""
    edges, heights = report["histogram"]["edges"], report["histogram"]["samples"]
    bars = partial(Axes.stairs, values=heights, edges=edges, fill=True, color=LINE)
    histogram = plot("lengths", "tokens", "samples", bars)
    losses = [loss for source in report["sources"] for loss in _losses(source)]
    return render("data/report.html.jinja", name, report=report, histogram=histogram, losses=losses)


def _bracketed(parts: list[dict[str, Any]]) -> str:
    return "".join(f"⟦{part['text']}⟧" if part["learned"] else part["text"] for part in parts)


def _losses(source: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return (source, what was lost, first places) of all that was dropped or cut."""
    name, cut = source["source"], source["truncated"]
    losses = [
        (name, f"{dropped['samples']:,} dropped: {reason}", dropped["first"])
        for reason, dropped in source["dropped"].items()
    ]
    rest = source["unanswered"]
    if rest["samples"]:
        what = f"{rest['samples']:,} lose what follows their last answer, as nobody answers it"
        losses.append((name, what, rest["first"]))
    if cut["samples"]:
        what = f"{cut['samples']:,} cut by {cut['tokens_cut']:,} tokens, "
        losses.append((name, f"{what}{cut['answers_cut']:,} within an answer", cut["first"]))
    return losses


def _source_lines(source: dict[str, Any]) -> list[str]:
    lines = [
        f"{source['source']}: {source['rows_read']:,} rows read, "
        f"{source['samples_kept']:,} samples kept ({source['samples_heldout']:,} held out), "
        f"{source['samples_per_epoch']:,} in an epoch"
    ]
    if source["duplicates"]:
        lines.append(f"  {source['duplicates']:,} samples are there more than once")
    return lines + [f"  {what} ({', '.join(first)})" for _, what, first in _losses(source)]


def _quantiles(quantiles: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in quantiles.items()) + " tokens"
