"""The data stage: sources to packs of tokens, and a report of what happened to every row."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from snaketune.data.formats import FORMATS, Conversation, fill, trim
from snaketune.data.packing import pack
from snaketune.data.reading import Row, read_rows
from snaketune.data.report import SHOWN, report_text, summarise
from snaketune.data.storage import write_packs
from snaketune.data.template import IGNORE, ChatTemplate, Encoded, supervised_tokens
from snaketune.errors import UserError
from snaketune.files import read_json, sha256, write_json, write_text

log = logging.getLogger(__name__)


@dataclass
class SourceRows:
    """What one source gave: its conversations, and what became of the rest."""

    label: str
    conversations: list[Conversation] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    rows_read: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    truncated: list[str] = field(default_factory=list)
    tokens_cut: int = 0

    def drop(self, reason: str, place: str) -> None:
        """Note that the row at `place` is not used."""
        self.dropped.setdefault(reason, []).append(place)


def prepare(spec: dict[str, Any], base: Path, output: Path) -> dict[str, Any]:
    """Run the data stage.

    Args:
        spec: `identity.data_key`: sources, template, max_length, pack, heldout.
        base: The base model's folder, for its tokenizer and chat template.
        output: The folder that gets train.arrow, heldout.arrow, report.json, report.txt and,
            last, data.json.

    Returns:
        The report.

    Raises:
        UserError: A row of the wrong shape, or nothing left to train on.
    """
    template = ChatTemplate(base, spec["template"])
    _require_context(base, spec["max_length"])
    train: list[Encoded] = []
    heldout: list[Encoded] = []
    sources = []
    loaded = [load_source(source) for source in spec["sources"]]
    shares = (heldout_questions(rows.conversations, spec["heldout"]) for rows in loaded)
    questions_aside = set().union(*shares)
    for source, rows in zip(spec["sources"], loaded, strict=True):
        inside, outside = split(rows.conversations, questions_aside)
        kept = _encode(rows, inside, template, spec["max_length"])
        aside = _encode(rows, outside, template, spec["max_length"])
        chosen = weigh(len(kept), source["weight"])
        train += [kept[index] for index in chosen]
        heldout += aside
        sources.append((rows, kept, aside, chosen))
        log.info("%s: %d rows read, %d kept", rows.label, rows.rows_read, len(kept) + len(aside))
    _require_supervision(train, sources, spec["max_length"])
    packs = _rows(train, spec)
    write_packs(output / "train.arrow", train, packs)
    write_packs(output / "heldout.arrow", heldout, _rows(heldout, spec))
    report = summarise(spec, template, sources, train, heldout, packs)
    write_json(output / "report.json", report)
    write_text(output / "report.txt", report_text(report))
    write_json(output / "data.json", _manifest(output, template, spec, report))
    return report


def load_source(source: dict[str, Any]) -> SourceRows:
    """Read one source and bring its rows to conversations.

    Raises:
        UserError: Rows of the wrong shape; the first few are listed with file, line and reason.
    """
    parse, result, mistakes = FORMATS[source["format"]], SourceRows(source["label"]), []
    rows = read_rows(Path(source["path"]))
    result.rows_read = len(rows)
    for row in rows:
        try:
            conversations = [trim(fill(found, source["vars"])) for found in parse(row.value)]
        except ValueError as error:
            mistakes.append(f"{row.place}: {error}")
            continue
        _take(result, row, conversations)
    if mistakes:
        raise UserError(_wrong_shape(source, mistakes, len(rows)))
    return _sampled(result, source.get("max_rows"))


def heldout_questions(conversations: Sequence[Conversation], share: float) -> set[str]:
    """Return the first questions to keep out of training, whatever the rows' order.

    Whole questions are chosen, so that no answer to one leaks into training. The choice follows
    a digest of the question: it needs no seed.
    """
    questions = {_first_question(conversation) for conversation in conversations}
    ordered = sorted(questions, key=lambda text: hashlib.sha256(text.encode()).digest())
    count = min(max(1, round(share * len(ordered))), len(ordered) - 1) if share and ordered else 0
    return set(ordered[:count])


def split(
    conversations: Sequence[Conversation], questions_aside: set[str]
) -> tuple[list[int], list[int]]:
    """Return the indices to train on and those to keep aside."""
    sides: tuple[list[int], list[int]] = ([], [])
    for index, conversation in enumerate(conversations):
        sides[_first_question(conversation) in questions_aside].append(index)
    return sides


def weigh(count: int, weight: float) -> list[int]:
    """Return which of `count` samples an epoch sees: each floor(weight) times, plus a sample."""
    whole, part = divmod(weight, 1)
    return list(range(count)) * int(whole) + _choose(count, round(part * count))


def _take(result: SourceRows, row: Row, conversations: list[Conversation]) -> None:
    for conversation in conversations:
        if conversation:
            result.conversations.append(conversation)
            result.places.append(row.place)
        else:
            result.drop("no answer to learn from", row.place)


def _sampled(rows: SourceRows, limit: int | None) -> SourceRows:
    if limit is not None and limit < len(rows.conversations):
        keep = _choose(len(rows.conversations), limit)
        rows.conversations = [rows.conversations[index] for index in keep]
        rows.places = [rows.places[index] for index in keep]
    return rows


def _choose(count: int, wanted: int) -> list[int]:
    """Return `wanted` of `count` indices, ascending; the same ones in every run."""
    return sorted(np.random.default_rng(0).permutation(count)[:wanted].tolist())


def _encode(
    rows: SourceRows, indices: list[int], template: ChatTemplate, max_length: int
) -> list[Encoded]:
    """Tokenise the chosen conversations, cut what is too long, drop what then has no loss."""
    place = rows.label

    def conversations() -> Iterator[Conversation]:
        nonlocal place
        for index in indices:
            place = rows.places[index]
            yield rows.conversations[index]

    try:
        encoded = list(template.encode(conversations()))
    except ValueError as error:
        raise UserError(
            f"{place}: {error}.\n  Fix: correct the row, or name another template, e.g. "
            "template: chatml"
        ) from error
    kept = []
    for index, whole in zip(indices, encoded, strict=True):
        cut = Encoded(whole.input_ids[:max_length], whole.labels[:max_length])
        if not supervised_tokens(cut):
            rows.drop(f"the answer starts after max_length = {max_length}", rows.places[index])
            continue
        if len(cut.input_ids) < len(whole.input_ids):
            rows.truncated.append(rows.places[index])
            rows.tokens_cut += len(whole.input_ids) - max_length
        kept.append(cut)
    return kept


def _rows(samples: list[Encoded], spec: dict[str, Any]) -> list[list[int]]:
    if not spec["pack"]:
        return [[index] for index in range(len(samples))]
    return pack([len(sample.input_ids) for sample in samples], spec["max_length"])


def _manifest(
    output: Path, template: ChatTemplate, spec: dict[str, Any], report: dict[str, Any]
) -> dict[str, Any]:
    """Return what later stages need to know; its digests tell whether the data changed."""
    return {
        "files": {name: sha256(output / name) for name in ("train.arrow", "heldout.arrow")},
        "max_length": spec["max_length"],
        "pack": spec["pack"],
        "template": {
            "name": template.name,
            "text": template.text,
            "sha256": hashlib.sha256(template.text.encode()).hexdigest(),
            "end_token_ids": template.end_token_ids(),
        },
        "train": report["train"],
        "heldout": report["heldout"],
    }


def _first_question(conversation: Conversation) -> str:
    return next(message["content"] for message in conversation if message["role"] == "user")


def _wrong_shape(source: dict[str, Any], mistakes: list[str], total: int) -> str:
    listed = "\n  ".join(mistakes[:SHOWN])
    more = f"\n  ... and {len(mistakes) - SHOWN} more" if len(mistakes) > SHOWN else ""
    return (
        f"{len(mistakes)} of {total} rows are not in the format '{source['format']}':\n"
        f"  {listed}{more}\n"
        "  Fix: correct the rows, or set the `format:` the file is in "
        f"({', '.join(FORMATS)})."
    )


def _require_supervision(train: list[Encoded], sources: list[Any], max_length: int) -> None:
    if any(label != IGNORE for sample in train for label in sample.labels):
        return
    reasons = Counter({r: len(p) for rows, *_ in sources for r, p in rows.dropped.items()})
    told = "; ".join(f"{count} rows: {reason}" for reason, count in reasons.items())
    raise UserError(
        f"no row has a token to learn from ({told or 'none is left after weighting'}).\n"
        f"  Fix: raise max_length (now {max_length}), or check that the rows hold answers."
    )


def _require_context(base: Path, max_length: int) -> None:
    """Refuse rows longer than the positions a model knows."""
    config = base / "config.json"
    known = read_json(config).get("max_position_embeddings") if config.exists() else None
    if known and max_length > known:
        raise UserError(
            f"max_length: {max_length} is more than the {known} positions of {base.name}.\n"
            f"  Fix: set max_length to {known} or less."
        )
