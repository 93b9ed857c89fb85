"""The figures of the data report: what was read, dropped, cut, and how it packs."""

from typing import Any

import numpy as np

from snaketune.data.storage import PackTable, Sizes
from snaketune.data.template import IGNORE, ChatTemplate, Encoded

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
            reason: {"samples": tally.count, "first": tally.first}
            for reason, tally in rows.dropped.items()
        },
        "unanswered": {"samples": rows.unanswered.count, "first": rows.unanswered.first},
        "truncated": {
            "samples": rows.truncated.count,
            "tokens_cut": rows.tokens_cut,
            "answers_cut": rows.answers_cut,
            "first": rows.truncated.first,
        },
    }
