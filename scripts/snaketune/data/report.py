"""The figures of the data report: what was read, dropped, cut, and how it packs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from snaketune.data.encoding import Chunk
from snaketune.data.storage import PackTable, Samples, Sizes
from snaketune.data.template import IGNORE, ChatTemplate, Encoded

LISTED = 5
"""How many places of the same mistake or reason are listed."""

SHOWN = 5
"""How many samples are shown, the same number of each source, at least one."""


@dataclass
class Tally:
    """How often something happened, and the first places."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < LISTED:
            self.first.append(place)


@dataclass
class SourceRows:
    """What one source gave: which samples, and what became of the rest.

    Attributes:
        samples: Their numbers in samples.arrow.
        groups: For each sample a digest of what it is held out with, uint64, chunk by chunk.
        texts: For each sample a digest of its tokens, likewise.
        dropped: Conversations left out, by reason.
        unanswered: Conversations whose end, what follows the last answer, is left out.
        truncated: Samples that were too long.
    """

    label: str
    format: str
    samples: range = range(0)
    groups: list[np.ndarray] = field(default_factory=list)
    texts: list[np.ndarray] = field(default_factory=list)
    rows_read: int = 0
    dropped: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    unanswered: Tally = field(default_factory=Tally)
    truncated: Tally = field(default_factory=Tally)
    tokens_cut: int = 0
    answers_cut: int = 0

    def add(self, chunk: Chunk) -> None:
        """Take note of a chunk."""
        self.rows_read += chunk.rows
        self.groups.append(np.array(chunk.groups, np.uint64))
        self.texts.append(np.array(chunk.texts, np.uint64))
        for reason, place in chunk.dropped:
            self.dropped[reason].add(place)
        for place in chunk.unanswered:
            self.unanswered.add(place)
        for place, _, _ in chunk.cut:
            self.truncated.add(place)
        self.tokens_cut += sum(tokens for _, tokens, _ in chunk.cut)
        self.answers_cut += sum(lost > 0 for _, _, lost in chunk.cut)


@dataclass(frozen=True)
class Split:
    """One source's samples by their use: numbers in samples.arrow, int64.

    `train` has those of an epoch, with repeats if the source has a weight above one.
    `duplicates` counts the samples that an earlier one equals token by token.
    """

    train: np.ndarray
    heldout: np.ndarray
    duplicates: int


def joined(splits: Sequence[Split]) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples of all sources to train on, and those held out; there may be no source."""
    none = np.empty(0, np.int64)
    train = np.concatenate([none, *(split.train for split in splits)])
    return train, np.concatenate([none, *(split.heldout for split in splits)])


def summarise(
    spec: dict[str, Any],
    template: ChatTemplate,
    sources: Sequence[SourceRows],
    splits: Sequence[Split],
    sizes: Sizes,
    packs: PackTable,
    samples: Samples,
    special: dict[str, int],
) -> dict[str, Any]:
    """Return the report as plain values; counts are in rows, samples or tokens as named.

    Args:
        sizes: Of all samples.
        packs: The training packs.
        special: How often the tokens that begin and end texts are in all samples.
    """
    train, heldout = joined(splits)
    lengths, supervised = sizes.lengths, sizes.supervised
    tokens = int(lengths[train].sum())
    packed = int((packs.stops - packs.starts).sum())
    each = -(-SHOWN // max(1, len(sources)))
    room = packs.size() * spec["max_length"] if spec["pack"] else tokens
    return {
        "template": template.name,
        **{key: spec[key] for key in ("max_length", "loss_on", "truncation", "pack")},
        "sources": [_source(*pair, lengths) for pair in zip(sources, splits, strict=True)],
        "train": _totals(lengths[train], supervised[train])
        | {
            "packs": packs.size(),
            "fill_rate": round(packed / max(1, room), 4),
            "tokens_not_packed": tokens - packed,
        },
        "histogram": _histogram(lengths[train]),
        "special_tokens": special,
        "heldout": _totals(lengths[heldout], supervised[heldout]),
        "samples": [
            {"source": source.label, "parts": decode(template, samples[number])}
            for source, split in zip(sources, splits, strict=True)
            for number in np.unique(split.train)[:each].tolist()
        ],
    }


def decode(template: ChatTemplate, sample: Encoded) -> list[dict[str, Any]]:
    """Return a sample's text in parts, `{"text": str, "learned": bool}`."""
    learned = [False, *(sample.labels[1:] != IGNORE).tolist()]
    parts = []
    tokens = zip(sample.input_ids.tolist(), learned, strict=True)
    for flag, group in groupby(tokens, key=lambda token: token[1]):
        ids = [token for token, _ in group]
        text = template.tokenizer.decode(ids, skip_special_tokens=False)
        parts.append({"text": text, "learned": flag})
    return parts


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


def _source(rows: SourceRows, split: Split, lengths: np.ndarray) -> dict[str, Any]:
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
