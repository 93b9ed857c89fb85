"""The data stage: from sources to packs of tokens, with a report on every row."""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, sha256
from snaketune.core.layout import BasePaths, DataPaths
from snaketune.core.progress import track_progress
from snaketune.data.data_record import DataRecord, DataReport
from snaketune.data.data_report import LISTED, SourceRows, SourceSplit, joined, summarise
from snaketune.data.data_spec import DataSpec, SourceSpec
from snaketune.data.encoding import Encoder, EncodingOptions, Mistake, conversations
from snaketune.data.formats import recognise
from snaketune.data.formats.row_fields import row_keys
from snaketune.data.names import FORMAT_NAMES
from snaketune.data.packing import concatenate_and_cut, pack
from snaketune.data.storage import (
    PackTable,
    Samples,
    SampleSizes,
    SampleWriter,
    loss_weight,
    write_packs,
    writing_samples,
)
from snaketune.rows.reading import Row, read_rows

log = logging.getLogger(__name__)

ROWS_TO_RECOGNISE = 20
"""Rows that `format: auto` looks at."""


def prepare(spec: DataSpec, base: Path, output: Path, workers: int = 1) -> DataReport:
    """Run the data stage.

    Args:
        base: The base model's folder, for its tokenizer and chat template.
        output: The folder that gets the files of `DataPaths`; data.json is written last.
        workers: Processes; the files are the same whatever their number.

    Raises:
        UserError: A row of the wrong shape, or nothing left to train on.
    """
    _require_context(base, spec.max_length)
    options = EncodingOptions(spec.template, spec.max_length, spec.loss_on, spec.truncation)
    paths = DataPaths(output)
    with (
        Encoder(base, options, workers) as encoder,
        writing_samples(paths.samples) as writer,
    ):
        template = encoder.template
        special = dict.fromkeys(template.boundary_tokens(), 0)
        sources = [_encode(encoder, writer, source, special) for source in spec.sources]
        sizes = writer.sizes()
    splits = _splits(spec, sources)
    train, heldout = joined(splits)
    _require_supervision(train, sources, spec.max_length)
    samples = Samples(paths.samples)
    packs = _packs(train, sizes, samples, spec)
    _write(paths.train, packs, sizes, samples)
    _write(paths.heldout, _packs(heldout, sizes, samples, spec), sizes, samples)
    report = summarise(spec, template, sources, splits, sizes, packs, samples, special)
    report.write(paths.report)
    files = (paths.samples, paths.train, paths.heldout)
    DataRecord(
        files={file.name: sha256(file) for file in files},
        max_length=spec.max_length,
        pack=spec.pack,
        template=template.record(_common_system(spec.sources)),
        train=report.train,
        heldout=report.heldout,
    ).write(paths.record)
    return report


def chosen_rows(source: SourceSpec) -> tuple[int, Iterator[Row]]:
    """Count and read a source's rows, a seeded sample of them if there are more than `max_rows`.

    Counting reads the source once more, which costs little compared to tokenising it.
    """
    path, limit = source.path, source.max_rows
    count = sum(1 for _ in read_rows(path))
    if limit is None or limit >= count:
        return count, read_rows(path)
    keep = set(_choose(count, limit))
    return limit, (row for index, row in enumerate(read_rows(path)) if index in keep)


def first_mistakes(source: SourceSpec) -> list[str]:
    """Check the first rows of a source quickly, without a tokenizer: one line for each mistake."""
    try:
        checked = conversations(_recognised(source), _first_rows(source))
    except UserError as error:
        return [str(error).splitlines()[0]]
    return [mistake.message for mistake in checked.mistakes]


def heldout_groups(groups: Sequence[int] | np.ndarray, share: float) -> np.ndarray:
    """Choose the groups to keep out of training, by their digests.

    Whole groups are chosen, so that no answer to a question leaks into training. The smallest
    digests are taken: the choice needs no seed and does not depend on the order of the rows.
    """
    distinct = np.unique(np.asarray(groups, np.uint64))
    count = min(max(1, round(share * len(distinct))), len(distinct) - 1) if share else 0
    return distinct[: max(count, 0)]


def sample_by_weight(count: int, weight: float) -> list[int]:
    """Choose the samples of an epoch: all of `count` floor(weight) times, then a seeded part."""
    whole, part = divmod(weight, 1)
    return list(range(count)) * int(whole) + _choose(count, round(part * count))


def _encode(
    encoder: Encoder, writer: SampleWriter, source: SourceSpec, special: dict[str, int]
) -> SourceRows:
    """Write a source's samples, and count the special tokens in them.

    Raises:
        UserError: Rows of the wrong shape; the first few are listed with file, line and reason.
    """
    source = _recognised(source)
    result, first = SourceRows(source.label, source.format), writer.count
    tokens = encoder.template.boundary_tokens()
    count, rows = chosen_rows(source)
    with track_progress(result.label, count, "rows") as tell:
        for chunk in encoder.chunks(source, rows):
            result.add(chunk)
            if chunk.mistakes:
                raise UserError(_wrong_rows(source, chunk.mistakes, result.rows_read))
            writer.write(chunk.samples)
            for name, token in tokens.items():
                special[name] += int(np.count_nonzero(chunk.samples.input_ids == token))
            tell(result.rows_read)
    result.samples = range(first, writer.count)
    log.info("%s: %d rows read, %d kept", result.label, result.rows_read, len(result.samples))
    return result


def _recognised(source: SourceSpec) -> SourceSpec:
    """Set the format of a source by its first rows, if it is `auto`.

    Raises:
        UserError: They fit several formats, or none.
    """
    if source.map:
        return replace(source, format="map")
    if source.format != "auto":
        return source
    rows = _first_rows(source)
    fitting = recognise(row.value for row in rows)
    if len(fitting) != 1:
        formats = f"the formats {', '.join(fitting)}" if fitting else "no format"
        odd = _first_in_doubt(rows)
        raise UserError(
            f"{odd.place}: the rows up to here fit {formats}, so `format: auto` cannot decide; "
            f"{row_keys(odd.value)}.\n"
            "  Fix: set `format:`, or name the columns: map: {user: ..., assistant: ...}"
        )
    log.info("%s: the rows are in format %s", source.label, fitting[0])
    return replace(source, format=fitting[0])


def _first_rows(source: SourceSpec) -> list[Row]:
    return list(islice(read_rows(source.path), ROWS_TO_RECOGNISE))


def _first_in_doubt(rows: Sequence[Row]) -> Row:
    """The row that rules out the last format, or the last row if several formats are left."""
    values = [row.value for row in rows]
    without = (index for index in range(len(rows)) if not recognise(values[: index + 1]))
    return rows[next(without, -1)]


def _splits(spec: DataSpec, sources: Sequence[SourceRows]) -> list[SourceSplit]:
    """Split each source's samples into those to train on and to hold out; no group is in both."""
    if not sources:
        return []
    groups = [np.concatenate(rows.groups) for rows in sources]
    # the shares are per source, but a group held out of one source is held out of all
    heldout = np.concatenate([heldout_groups(digests, spec.heldout) for digests in groups])
    texts = np.concatenate([digests for rows in sources for digests in rows.texts])
    repeated = np.ones(len(texts), bool)
    repeated[np.unique(texts, return_index=True)[1]] = False
    splits = []
    for source, rows, grouped in zip(spec.sources, sources, groups, strict=True):
        numbers = np.arange(rows.samples.start, rows.samples.stop)
        outside = np.isin(grouped, heldout)
        kept = ~repeated[numbers] if spec.deduplicate else np.ones(len(numbers), bool)
        inside = numbers[kept & ~outside]
        chosen = sample_by_weight(len(inside), source.weight)
        duplicates = int(repeated[numbers].sum())
        splits.append(SourceSplit(inside[chosen], numbers[kept & outside], duplicates))
    return splits


def _choose(count: int, wanted: int) -> list[int]:
    """Choose `wanted` of `count` indices, ascending; the same ones in every run."""
    return sorted(np.random.default_rng(0).permutation(count)[:wanted].tolist())


def _packs(numbers: np.ndarray, sizes: SampleSizes, samples: Samples, spec: DataSpec) -> PackTable:
    """Pack some samples; a cut pack without a supervised token is left out."""
    lengths = sizes.lengths[numbers]
    if spec.pack == "xtuner":
        rows = concatenate_and_cut(lengths, spec.max_length)
        pieces = ([(int(numbers[n]), a, b) for n, a, b in row] for row in rows)
        return PackTable.of(
            [row for row in pieces if any(loss_weight(samples[n].part(a, b)) for n, a, b in row)]
        )
    if spec.pack:
        return PackTable.of_whole(pack(lengths, spec.max_length), numbers, lengths)
    return PackTable.of_whole([[index] for index in range(len(numbers))], numbers, lengths)


def _write(path: Path, packs: PackTable, sizes: SampleSizes, samples: Samples) -> None:
    weights = sizes.loss_weight[packs.samples]
    for index in np.flatnonzero(packs.stops - packs.starts < sizes.lengths[packs.samples]):
        number, start, stop = (int(values[index]) for values in packs[:3])
        weights[index] = loss_weight(samples[number].part(start, stop))
    write_packs(path, packs, weights)


def _common_system(sources: Sequence[SourceSpec]) -> str:
    """The system message of all sources, "" if they differ or have none."""
    systems = {source.system for source in sources}
    return systems.pop() if len(systems) == 1 else ""


def _wrong_rows(source: SourceSpec, mistakes: list[Mistake], total: int) -> str:
    listed = "".join(f"\n  {mistake.message}" for mistake in mistakes[:LISTED])
    more = f"\n  ... and {len(mistakes) - LISTED} more" if len(mistakes) > LISTED else ""
    usual = f"correct the rows, or set the `format:` they are in ({', '.join(FORMAT_NAMES)})"
    if source.map:
        usual = "correct the rows, or the columns that `map:` names"
    fixes = dict.fromkeys(mistake.fix or usual for mistake in mistakes[:LISTED])
    return (
        f"{len(mistakes)} of the first {total} rows cannot be used as '{source.format}':"
        f"{listed}{more}" + "".join(f"\n  Fix: {fix}." for fix in fixes)
    )


def _require_supervision(train: np.ndarray, sources: list[SourceRows], max_length: int) -> None:
    if len(train) or not sources:
        return
    reasons: Counter[str] = Counter()
    for rows in sources:
        reasons.update({reason: tally.count for reason, tally in rows.dropped.items()})
    listed = "; ".join(f"{count} rows: {reason}" for reason, count in reasons.items())
    raise UserError(
        f"no row has a token to learn from ({listed or 'none is left after weighting'}).\n"
        f"  Fix: {_remedy(reasons, max_length)}."
    )


def _remedy(reasons: Collection[str], max_length: int) -> str:
    if not reasons:
        return "raise the sources' `weight`"
    if any("max_length" in reason for reason in reasons):
        return f"raise max_length (now {max_length})"
    return "provide rows with answers, and a `filter` that keeps some of them"


def _require_context(base: Path, max_length: int) -> None:
    """Refuse rows longer than the positions of the model."""
    config = BasePaths(base).config
    known = read_json(config).get("max_position_embeddings") if config.exists() else None
    if known and max_length > known:
        raise UserError(
            f"max_length: {max_length} is more than the {known} positions of {base.name}.\n"
            f"  Fix: set max_length to {known} or less."
        )
