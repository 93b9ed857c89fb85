"""Count what was read, dropped and cut, and how it packs: the figures of the data report."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from snaketune.data.data_record import (
    Affected,
    DataReport,
    LengthHistogram,
    PackCounts,
    SampleCounts,
    ShownSample,
    SourceReport,
    TextPart,
    Truncated,
)
from snaketune.data.data_spec import DataSpec
from snaketune.data.encoding import Chunk
from snaketune.data.storage import PackTable, Samples, SampleSizes
from snaketune.data.template import IGNORE, ChatTemplate, EncodedSample

LISTED = 5
"""How many places of the same mistake or reason are listed."""

SHOWN = 5
"""How many samples are shown, the same number of each source, at least one."""

_MOST_BINS = 40


@dataclass
class Tally:
    """How often something happened, and the first places."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        self.count += 1
        if len(self.first) < LISTED:
            self.first.append(place)

    def record(self) -> Affected:
        return Affected(samples=self.count, first=self.first)


@dataclass
class SourceRows:
    """The samples of one source, and what became of its other rows.

    Attributes:
        samples: Their numbers in samples.arrow.
        groups: For each sample a digest of what it is held out with, uint64, chunk by chunk.
        texts: For each sample a digest of its tokens, likewise.
        dropped: Conversations left out, by reason.
        unanswered: Conversations that lost what follows their last answer.
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
        self.answers_cut += sum(supervised > 0 for _, _, supervised in chunk.cut)


@dataclass(frozen=True)
class SourceSplit:
    """One source's samples by their use: numbers in samples.arrow, int64.

    `train` has those of an epoch, with repeats if the source has a weight above one.
    `duplicates` counts the samples that an earlier one equals token by token.
    """

    train: np.ndarray
    heldout: np.ndarray
    duplicates: int


def joined(splits: Sequence[SourceSplit]) -> tuple[np.ndarray, np.ndarray]:
    """Join the samples of all sources, those to train on and those held out."""
    none = np.empty(0, np.int64)  # concatenate refuses an empty list, and there may be no source
    train = np.concatenate([none, *(split.train for split in splits)])
    return train, np.concatenate([none, *(split.heldout for split in splits)])


def summarise(
    spec: DataSpec,
    template: ChatTemplate,
    sources: Sequence[SourceRows],
    splits: Sequence[SourceSplit],
    sizes: SampleSizes,
    packs: PackTable,
    samples: Samples,
    special_tokens: dict[str, int],
) -> DataReport:
    """Make the report.

    Args:
        sizes: Of all samples.
        packs: The training packs.
        special_tokens: How often the tokens that begin and end texts are in all samples.
    """
    train, heldout = joined(splits)
    return DataReport(
        template=template.name,
        max_length=spec.max_length,
        loss_on=spec.loss_on,
        truncation=spec.truncation,
        pack=spec.pack,
        sources=[
            _source_report(rows, split, sizes.lengths)
            for rows, split in zip(sources, splits, strict=True)
        ],
        train=_pack_counts(train, sizes, packs, spec),
        histogram=_histogram(sizes.lengths[train]),
        special_tokens=special_tokens,
        heldout=_sample_counts(heldout, sizes),
        samples=_shown(template, sources, splits, samples),
    )


def decode(template: ChatTemplate, sample: EncodedSample) -> list[TextPart]:
    """Turn a sample back into text, in parts that are learned or not."""
    learned = [False, *(sample.labels[1:] != IGNORE).tolist()]
    parts = []
    tokens = zip(sample.input_ids.tolist(), learned, strict=True)
    for flag, group in groupby(tokens, key=lambda token: token[1]):
        ids = [token for token, _ in group]
        text = template.tokenizer.decode(ids, skip_special_tokens=False)
        parts.append(TextPart(text=text, learned=flag))
    return parts


def _shown(
    template: ChatTemplate,
    sources: Sequence[SourceRows],
    splits: Sequence[SourceSplit],
    samples: Samples,
) -> list[ShownSample]:
    per_source = -(-SHOWN // max(1, len(sources)))
    return [
        ShownSample(source=source.label, parts=decode(template, samples[number]))
        for source, split in zip(sources, splits, strict=True)
        for number in np.unique(split.train)[:per_source].tolist()
    ]


def _histogram(lengths: np.ndarray) -> LengthHistogram:
    bins = min(_MOST_BINS, max(1, len(np.unique(lengths))))
    samples, edges = np.histogram(lengths, bins=bins)
    rounded = [round(edge, 2) for edge in edges.tolist()]
    return LengthHistogram(edges=rounded, samples=samples.tolist())


def _pack_counts(
    train: np.ndarray, sizes: SampleSizes, packs: PackTable, spec: DataSpec
) -> PackCounts:
    counts = _sample_counts(train, sizes)
    packed = int((packs.stops - packs.starts).sum())
    positions = packs.size() * spec.max_length if spec.pack else counts.tokens
    return PackCounts(
        **dict(counts),
        packs=packs.size(),
        fill_rate=round(packed / max(1, positions), 4),
        tokens_not_packed=counts.tokens - packed,
    )


def _sample_counts(numbers: np.ndarray, sizes: SampleSizes) -> SampleCounts:
    lengths = sizes.lengths[numbers]
    names = ["min", "25%", "50%", "75%", "95%", "max"]
    shares = [0, 0.25, 0.5, 0.75, 0.95, 1]
    quantiles = np.quantile(lengths, shares).tolist() if len(lengths) else []
    return SampleCounts(
        samples=len(lengths),
        tokens=int(lengths.sum()),
        supervised_tokens=int(sizes.supervised[numbers].sum()),
        length_quantiles=dict(zip(names, quantiles, strict=False)),
    )


def _source_report(rows: SourceRows, split: SourceSplit, lengths: np.ndarray) -> SourceReport:
    return SourceReport(
        source=rows.label,
        format=rows.format,
        rows_read=rows.rows_read,
        samples_kept=len(rows.samples),
        samples_heldout=len(split.heldout),
        duplicates=split.duplicates,
        samples_per_epoch=len(split.train),
        tokens_per_epoch=int(lengths[split.train].sum()),
        dropped={reason: tally.record() for reason, tally in rows.dropped.items()},
        unanswered=rows.unanswered.record(),
        truncated=Truncated(
            samples=rows.truncated.count,
            tokens_cut=rows.tokens_cut,
            answers_cut=rows.answers_cut,
            first=rows.truncated.first,
        ),
    )
