"""The data report: what was read, dropped, cut, and how it packs: JSON, text and a page."""

import re
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from snaketune.data.storage import PackTable, Sizes
from snaketune.data.template import IGNORE, ChatTemplate, Encoded
from snaketune.experiment.schema import Train
from snaketune.pages import LINE, plot, render

SHOWN = 5
"""How many places of the same mistake or reason are listed."""


def summarise(
    spec: dict[str, Any],
    template: ChatTemplate,
    sources: list[Any],
    splits: list[Any],
    sizes: Sizes,
    packs: PackTable,
    shown: list[Encoded],
    special: dict[str, int],
) -> dict[str, Any]:
    """Return the report as plain values; counts are in rows, samples or tokens as named.

    Args:
        sources: A SourceRows for each source.
        splits: A Split for each source.
        sizes: Of all samples.
        packs: The training packs.
        shown: The samples to decode.
        special: How often the tokens that begin and end texts are in all samples.
    """
    train = np.concatenate([split.train for split in splits])
    heldout = np.concatenate([split.heldout for split in splits])
    lengths, supervised = sizes.lengths, sizes.supervised
    tokens = int(lengths[train].sum())
    packed = int((packs.stops - packs.starts).sum())
    room = packs.size() * spec["max_length"] if spec["pack"] else tokens
    return {
        "template": template.name,
        **{key: spec[key] for key in ("max_length", "loss_on", "truncation", "pack")},
        "sources": [_source(*pair, lengths) for pair in zip(sources, splits, strict=True)],
        "train": _totals(lengths[train], supervised[train])
        | {
            "packs": packs.size(),
            "fill_rate": round(packed / room, 4),
            "tokens_not_packed": tokens - packed,
        },
        "histogram": _histogram(lengths[train]),
        "special_tokens": special,
        "heldout": _totals(lengths[heldout], supervised[heldout]),
        "samples": [decode(template, sample) for sample in shown],
    }


def decode(template: ChatTemplate, sample: Encoded) -> str:
    """Return a sample's text with what is learned from between ⟦ and ⟧."""
    pieces: list[int] = []
    text, learned = "", False
    labels = [IGNORE, *sample.labels[1:].tolist()]
    for token, label in zip(sample.input_ids.tolist(), labels, strict=True):
        if (label != IGNORE) != learned:
            text += template.tokenizer.decode(pieces, skip_special_tokens=False)
            text += "⟧" if learned else "⟦"
            pieces, learned = [], not learned
        pieces.append(token)
    text += template.tokenizer.decode(pieces, skip_special_tokens=False)
    return text + ("⟧" if learned else "")


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
        lines += ["", sample.rstrip()]
    return "\n".join(lines) + "\n"


def with_training(report: dict[str, Any], train: Train) -> dict[str, Any]:
    """Return the report with what this data and these settings will come to, on one device."""
    iterations = -(-report["train"]["packs"] // train.batch_size) * train.epochs
    training = {
        "iterations": iterations,
        "updates": -(-iterations // train.accumulate),
        "checkpoints": -(-iterations // train.save_every),
    }
    return report | {"training": training}


def report_html(name: str, report: dict[str, Any]) -> str:
    """Return the report as a page."""
    edges, heights = report["histogram"]["edges"], report["histogram"]["samples"]
    bars = partial(Axes.stairs, values=heights, edges=edges, fill=True, color=LINE)
    histogram = plot("lengths", "tokens", "samples", bars)
    samples = [
        [(text, bool(number % 2)) for number, text in enumerate(re.split("[⟦⟧]", sample))]
        for sample in report["samples"]
    ]
    losses = [loss for source in report["sources"] for loss in _losses(source)]
    return render(
        "data/report.html.jinja",
        name,
        report=report,
        histogram=histogram,
        samples=samples,
        losses=losses,
    )


def _losses(source: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return (source, what was lost, first places) of all that was dropped or cut."""
    name, cut = source["source"], source["truncated"]
    losses = [
        (name, f"{dropped['samples']:,} dropped: {reason}", dropped["first"])
        for reason, dropped in source["dropped"].items()
    ]
    if cut["samples"]:
        what = f"{cut['samples']:,} cut by {cut['tokens_cut']:,} tokens, "
        losses.append((name, f"{what}{cut['answers_cut']:,} within an answer", cut["first"]))
    return losses


def _histogram(lengths: np.ndarray) -> dict[str, list[float]]:
    samples, edges = np.histogram(lengths, bins=min(40, max(1, len(np.unique(lengths)))))
    return {"edges": [round(edge, 2) for edge in edges.tolist()], "samples": samples.tolist()}


def _totals(lengths: np.ndarray, supervised: np.ndarray) -> dict[str, Any]:
    shares = [0, 0.25, 0.5, 0.75, 0.95, 1]
    quantiles = np.quantile(lengths, shares).tolist() if len(lengths) else []
    return {
        "samples": len(lengths),
        "tokens": int(lengths.sum()),
        "supervised_tokens": int(supervised.sum()),
        "length_quantiles": dict(
            zip(["min", "25%", "50%", "75%", "95%", "max"], quantiles, strict=False)
        ),
    }


def _source(rows: Any, split: Any, lengths: np.ndarray) -> dict[str, Any]:
    return {
        "source": rows.label,
        "format": rows.format,
        "rows_read": rows.rows_read,
        "samples_kept": len(rows.samples),
        "samples_heldout": len(split.heldout),
        "duplicates": split.duplicates,
        "samples_per_epoch": len(split.train),
        "tokens_per_epoch": int(lengths[split.train].sum()),
        "dropped": {
            reason: {"samples": count, "first": places}
            for reason, (count, places) in rows.dropped.items()
        },
        "truncated": {
            "samples": rows.truncated,
            "tokens_cut": rows.tokens_cut,
            "answers_cut": rows.answers_cut,
            "first": rows.first_truncated,
        },
    }


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
