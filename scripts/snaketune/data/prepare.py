"""The data stage: sources to packs of tokens, and a report of what happened to every row."""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, sha256, write_json
from snaketune.core.progress import track_progress
from snaketune.data.encoding import Encoder, Mistake, Settings, conversations
from snaketune.data.formats import recognise
from snaketune.data.formats.row_fields import row_keys
from snaketune.data.names import FORMAT_NAMES
from snaketune.data.packing import concatenate_and_cut, pack
from snaketune.data.reading import Row, read_rows
from snaketune.data.report import LISTED, SourceRows, Split, joined, summarise
from snaketune.data.storage import (
    PackTable,
    Samples,
    SampleWriter,
    Sizes,
    loss_weight,
    write_packs,
    writing_samples,
)
from snaketune.data.template import ChatTemplate

log = logging.getLogger(__name__)

FILES = ("samples.arrow", "train.arrow", "heldout.arrow")

LOOKED_AT = 20
"""Rows that `format: auto` looks at."""


def prepare(spec: dict[str, Any], base: Path, output: Path, workers: int = 1) -> dict[str, Any]:
    """Run the data stage.

    Args:
        spec: `identity.data_key`: sources, template, loss_on, max_length, truncation,
            deduplicate, pack, heldout.
        base: The base model's folder, for its tokenizer and chat template.
        output: The folder that gets samples.arrow, train.arrow, heldout.arrow, report.json and,
            last, data.json.
        workers: Processes; the files are the same whatever their number.

    Returns:
        The report.

    Raises:
        UserError: A row of the wrong shape, or nothing left to train on.
    """
    _require_context(base, spec["max_length"])
    settings = Settings(*(spec[key] for key in Settings.__annotations__))
    with (
        Encoder(base, settings, workers) as encoder,
        writing_samples(output / "samples.arrow") as writer,
    ):
        template = encoder.template
        special = dict.fromkeys(template.boundary_tokens(), 0)
        sources = [_encode(encoder, writer, source, special) for source in spec["sources"]]
        sizes = writer.sizes()
    splits = _splits(spec, sources)
    train, heldout = joined(splits)
    _require_supervision(train, sources, spec["max_length"])
    samples = Samples(output / "samples.arrow")
    packs = _packs(train, sizes, samples, spec)
    _write(output / "train.arrow", packs, sizes, samples)
    _write(output / "heldout.arrow", _packs(heldout, sizes, samples, spec), sizes, samples)
    report = summarise(spec, template, sources, splits, sizes, packs, samples, special)
    write_json(output / "report.json", report)
    write_json(output / "data.json", _manifest(output, template, spec, report))
    return report


def chosen_rows(source: dict[str, Any]) -> tuple[int, Iterator[Row]]:
    """Return a source's rows, or a seeded sample if it has more than `max_rows`, and their count.

    Counting reads the source once more, which costs little beside the tokenizer's work.
    """
    path, limit = Path(source["path"]), source.get("max_rows")
    count = sum(1 for _ in read_rows(path))
    if limit is None or limit >= count:
        return count, read_rows(path)
    keep = set(_choose(count, limit))
    return limit, (row for index, row in enumerate(read_rows(path)) if index in keep)


def first_mistakes(source: dict[str, Any]) -> list[str]:
    """Return what is wrong with the first rows of a source, without a tokenizer: a quick look."""
    try:
        source = _recognised(source)
        found = conversations(source, list(islice(read_rows(Path(source["path"])), LOOKED_AT)))
    except UserError as error:
        return [str(error).splitlines()[0]]
    return [mistake.told for mistake in found.mistakes]


def heldout_groups(groups: Sequence[int] | np.ndarray, share: float) -> np.ndarray:
    """Return the digests of the groups to keep out of training, whatever the rows' order.

    Whole groups are chosen, so that no answer to a question leaks into training. The choice follows
    the digests: it needs no seed.
    """
    distinct = np.unique(np.asarray(groups, np.uint64))
    count = min(max(1, round(share * len(distinct))), len(distinct) - 1) if share else 0
    return distinct[: max(count, 0)]


def weigh(count: int, weight: float) -> list[int]:
    """Return which of `count` samples an epoch sees: each floor(weight) times, plus a sample."""
    whole, part = divmod(weight, 1)
    return list(range(count)) * int(whole) + _choose(count, round(part * count))


def _encode(
    encoder: Encoder, writer: SampleWriter, source: dict[str, Any], special: dict[str, int]
) -> SourceRows:
    """Write a source's samples, and count the special tokens in them.

    Raises:
        UserError: Rows of the wrong shape; the first few are listed with file, line and reason.
    """
    source = _recognised(source)
    result, first = SourceRows(source["label"], source["format"]), writer.count
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


def _recognised(source: dict[str, Any]) -> dict[str, Any]:
    """Return a source with its format told by its first rows, if that is `auto`.

    Raises:
        UserError: They fit several formats, or none.
    """
    if source.get("map"):
        return source | {"format": "map"}
    if source["format"] != "auto":
        return source
    rows = list(islice(read_rows(Path(source["path"])), LOOKED_AT))
    fitting = recognise(row.value for row in rows)
    if len(fitting) != 1:
        found = f"the formats {', '.join(fitting)}" if fitting else "no format"
        odd = _first_in_doubt(rows)
        raise UserError(
            f"{odd.place}: the rows up to here fit {found}, so `format: auto` cannot tell; "
            f"{row_keys(odd.value)}.\n"
            "  Fix: set `format:`, or name the columns: map: {user: ..., assistant: ...}"
        )
    log.info("%s: the rows are in format %s", source["label"], fitting[0])
    return source | {"format": fitting[0]}


def _first_in_doubt(rows: Sequence[Row]) -> Row:
    """Return the row that leaves no format for those up to it, or the last if several are left."""
    values = [row.value for row in rows]
    without = (index for index in range(len(rows)) if not recognise(values[: index + 1]))
    return rows[next(without, -1)]


def _splits(spec: dict[str, Any], sources: Sequence[SourceRows]) -> list[Split]:
    """Return each source's samples to train on and to hold out; a group is on one side."""
    if not sources:
        return []
    groups = [np.concatenate(each.groups) for each in sources]
    aside = np.concatenate([heldout_groups(each, spec["heldout"]) for each in groups])
    texts = np.concatenate([text for each in sources for text in each.texts])
    repeated = np.ones(len(texts), bool)
    repeated[np.unique(texts, return_index=True)[1]] = False
    splits = []
    for source, rows, grouped in zip(spec["sources"], sources, groups, strict=True):
        numbers = np.arange(rows.samples.start, rows.samples.stop)
        outside = np.isin(grouped, aside)
        kept = ~repeated[numbers] if spec["deduplicate"] else np.ones(len(numbers), bool)
        inside = numbers[kept & ~outside]
        chosen = weigh(len(inside), source["weight"])
        duplicates = int(repeated[numbers].sum())
        splits.append(Split(inside[chosen], numbers[kept & outside], duplicates))
    return splits


def _choose(count: int, wanted: int) -> list[int]:
    """Return `wanted` of `count` indices, ascending; the same ones in every run."""
    return sorted(np.random.default_rng(0).permutation(count)[:wanted].tolist())


def _packs(numbers: np.ndarray, sizes: Sizes, samples: Samples, spec: dict[str, Any]) -> PackTable:
    """Return the packs of some samples; a cut one may hold nothing to learn, and is left out."""
    lengths = sizes.lengths[numbers]
    if spec["pack"] == "xtuner":
        rows = concatenate_and_cut(lengths, spec["max_length"])
        pieces = ([(int(numbers[n]), a, b) for n, a, b in row] for row in rows)
        return PackTable.of(
            [row for row in pieces if any(loss_weight(samples[n].part(a, b)) for n, a, b in row)]
        )
    if spec["pack"]:
        return PackTable.of_whole(pack(lengths, spec["max_length"]), numbers, lengths)
    return PackTable.of_whole([[index] for index in range(len(numbers))], numbers, lengths)


def _write(path: Path, packs: PackTable, sizes: Sizes, samples: Samples) -> None:
    weights = sizes.loss_weight[packs.samples]
    for index in np.flatnonzero(packs.stops - packs.starts < sizes.lengths[packs.samples]):
        number, start, stop = (int(values[index]) for values in packs[:3])
        weights[index] = loss_weight(samples[number].part(start, stop))
    write_packs(path, packs, weights)


def _manifest(
    output: Path, template: ChatTemplate, spec: dict[str, Any], report: dict[str, Any]
) -> dict[str, Any]:
    """Return what later stages need to know; its digests tell whether the data changed."""
    return {
        "files": {name: sha256(output / name) for name in FILES},
        "max_length": spec["max_length"],
        "pack": spec["pack"],
        "template": template.bound(_common_system(spec["sources"])),
        "train": report["train"],
        "heldout": report["heldout"],
    }


def _common_system(sources: Sequence[dict[str, Any]]) -> str:
    """Return the system message that all sources are given, "" if they differ or have none."""
    given = {source.get("system") or "" for source in sources}
    return given.pop() if len(given) == 1 else ""


def _wrong_rows(source: dict[str, Any], mistakes: list[Mistake], total: int) -> str:
    listed = "".join(f"\n  {mistake.told}" for mistake in mistakes[:LISTED])
    more = f"\n  ... and {len(mistakes) - LISTED} more" if len(mistakes) > LISTED else ""
    usual = f"correct the rows, or set the `format:` they are in ({', '.join(FORMAT_NAMES)})"
    if source.get("map"):
        usual = "correct the rows, or the columns that `map:` names"
    fixes = dict.fromkeys(mistake.fix or usual for mistake in mistakes[:LISTED])
    return (
        f"{len(mistakes)} of the first {total} rows cannot be used as '{source['format']}':"
        f"{listed}{more}" + "".join(f"\n  Fix: {fix}." for fix in fixes)
    )


def _require_supervision(train: np.ndarray, sources: list[SourceRows], max_length: int) -> None:
    if len(train) or not sources:
        return
    reasons: Counter[str] = Counter()
    for rows in sources:
        reasons.update({reason: tally.count for reason, tally in rows.dropped.items()})
    told = "; ".join(f"{count} rows: {reason}" for reason, count in reasons.items())
    raise UserError(
        f"no row has a token to learn from ({told or 'none is left after weighting'}).\n"
        f"  Fix: {_remedy(reasons, max_length)}."
    )


def _remedy(reasons: Collection[str], max_length: int) -> str:
    """Return what to do about rows that were all dropped."""
    if not reasons:
        return "raise the sources' `weight`"
    if any("max_length" in reason for reason in reasons):
        return f"raise max_length (now {max_length})"
    return "give it rows with answers to learn, and a `filter` that keeps some"


def _require_context(base: Path, max_length: int) -> None:
    """Refuse rows longer than the positions a model knows."""
    config = base / "config.json"
    known = read_json(config).get("max_position_embeddings") if config.exists() else None
    if known and max_length > known:
        raise UserError(
            f"max_length: {max_length} is more than the {known} positions of {base.name}.\n"
            f"  Fix: set max_length to {known} or less."
        )
