"""The data report: what was read, dropped, cut, and how it packs, as JSON and as text."""

from typing import Any

import numpy as np

from snaketune.data.packing import Piece
from snaketune.data.storage import Sizes
from snaketune.data.template import IGNORE, ChatTemplate, Encoded

SHOWN = 5
"""How many places of the same mistake or reason are listed."""


def summarise(
    spec: dict[str, Any],
    template: ChatTemplate,
    sources: list[Any],
    splits: list[Any],
    sizes: Sizes,
    packs: list[list[Piece]],
    shown: list[Encoded],
) -> dict[str, Any]:
    """Return the report as plain values; counts are in rows, samples or tokens as named.

    Args:
        sources: A SourceRows for each source.
        splits: A Split for each source.
        sizes: Of all samples.
        packs: The pieces of each training pack.
        shown: The samples to decode.
    """
    train = np.concatenate([split.train for split in splits])
    heldout = np.concatenate([split.heldout for split in splits])
    lengths, supervised = sizes.lengths, sizes.supervised
    tokens = int(lengths[train].sum())
    packed = sum(stop - start for pieces in packs for _, start, stop in pieces)
    room = len(packs) * spec["max_length"] if spec["pack"] else tokens
    return {
        "template": template.name,
        "max_length": spec["max_length"],
        "sources": [_source(*pair, lengths) for pair in zip(sources, splits, strict=True)],
        "train": _totals(lengths[train], supervised[train])
        | {
            "packs": len(packs),
            "fill_rate": round(packed / room, 4),
            "tokens_not_packed": tokens - packed,
        },
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
        f"lengths:  {_quantiles(train['length_quantiles'])}",
        "",
        "What the model learns from stands between ⟦ and ⟧:",
    ]
    for sample in report["samples"]:
        lines += ["", sample.rstrip()]
    return "\n".join(lines) + "\n"


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
    for reason, dropped in source["dropped"].items():
        first = ", ".join(dropped["first"])
        lines.append(f"  dropped {dropped['samples']:,}: {reason} ({first})")
    if source["duplicates"]:
        lines.append(f"  {source['duplicates']:,} samples are there more than once")
    cut = source["truncated"]
    if cut["samples"]:
        first = ", ".join(cut["first"])
        lines.append(
            f"  cut {cut['samples']:,} samples by {cut['tokens_cut']:,} tokens, "
            f"{cut['answers_cut']:,} of them within an answer ({first})"
        )
    return lines


def _quantiles(quantiles: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in quantiles.items()) + " tokens"
