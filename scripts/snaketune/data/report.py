"""The data report: what was read, dropped, cut, and how it packs, as JSON and as text."""

from typing import Any

import numpy as np

from snaketune.data.template import IGNORE, ChatTemplate, Encoded, supervised_tokens

SHOWN = 5
"""How many places of the same mistake or reason are listed."""


def summarise(
    spec: dict[str, Any],
    template: ChatTemplate,
    sources: list[Any],
    train: list[Encoded],
    heldout: list[Encoded],
    packs: list[list[int]],
) -> dict[str, Any]:
    """Return the report as plain values; counts are in rows, samples or tokens as named.

    Args:
        sources: For each source its SourceRows, kept samples, held-out samples and the indices
            of the kept samples that an epoch sees.
        packs: Indices into `train`.
    """
    tokens = sum(len(sample.input_ids) for sample in train)
    room = len(packs) * spec["max_length"] if spec["pack"] else tokens
    return {
        "template": template.name,
        "max_length": spec["max_length"],
        "sources": [_source(*source) for source in sources],
        "train": _totals(train) | {"packs": len(packs), "fill_rate": round(tokens / room, 4)},
        "heldout": _totals(heldout),
        "samples": [decode(template, sample) for sample in train[:2]],
    }


def decode(template: ChatTemplate, sample: Encoded) -> str:
    """Return a sample's text with what is learned from between ⟦ and ⟧."""
    pieces: list[int] = []
    text, learned = "", False
    for token, label in zip(sample.input_ids, [IGNORE, *sample.labels[1:]], strict=True):
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


def _totals(samples: list[Encoded]) -> dict[str, Any]:
    lengths = [len(sample.input_ids) for sample in samples]
    quantiles = np.quantile(lengths, [0, 0.25, 0.5, 0.75, 0.95, 1]).tolist() if lengths else []
    return {
        "samples": len(samples),
        "tokens": sum(lengths),
        "supervised_tokens": sum(map(supervised_tokens, samples)),
        "length_quantiles": dict(
            zip(["min", "25%", "50%", "75%", "95%", "max"], quantiles, strict=False)
        ),
    }


def _source(
    rows: Any, kept: list[Encoded], aside: list[Encoded], chosen: list[int]
) -> dict[str, Any]:
    return {
        "source": rows.label,
        "rows_read": rows.rows_read,
        "samples_kept": len(kept) + len(aside),
        "samples_heldout": len(aside),
        "samples_per_epoch": len(chosen),
        "tokens_per_epoch": sum(len(kept[index].input_ids) for index in chosen),
        "dropped": {
            reason: {"samples": len(places), "first": places[:SHOWN]}
            for reason, places in rows.dropped.items()
        },
        "truncated": {
            "samples": len(rows.truncated),
            "tokens_cut": rows.tokens_cut,
            "first": rows.truncated[:SHOWN],
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
    cut = source["truncated"]
    if cut["samples"]:
        first = ", ".join(cut["first"])
        lines.append(f"  cut {cut['samples']:,} samples by {cut['tokens_cut']:,} tokens ({first})")
    return lines


def _quantiles(quantiles: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in quantiles.items()) + " tokens"
