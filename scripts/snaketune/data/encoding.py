"""Rows to token ids and labels, in chunks that may run in several processes.

A chunk's result depends on its rows alone, and chunks come back in order: any number of workers
gives the same bytes.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from snaketune.data.conversation import (
    Conversation,
    RowError,
    SkippedRow,
    fill,
    trim,
    with_system,
)
from snaketune.data.formats import FORMATS
from snaketune.data.formats.flat_formats import arxiv_filter, mapped
from snaketune.data.formats.format_registry import Parse
from snaketune.data.formats.row_fields import group_of
from snaketune.data.reading import Row
from snaketune.data.storage import Columns
from snaketune.data.template import ChatTemplate, Encoded, supervised_tokens

CHUNK = 500
"""Rows that are encoded together."""

FEW = 4 * CHUNK
"""Rows that are sooner encoded here than processes are started."""

LOOKAHEAD = 3
"""Chunks for each worker that are read before the first of them is needed."""


class Mistake(NamedTuple):
    """What is wrong with a row, as `file:line: reason`, and what to do, "" for the usual."""

    told: str
    fix: str


@dataclass
class Chunk:
    """What became of some rows, in their order.

    Attributes:
        rows: How many were read.
        samples: The samples made of them.
        groups: For each sample a digest of what it is held out with, uint64.
        texts: For each sample a digest of its tokens, uint64.
        dropped: (reason, place) of each conversation that is not used.
        cut: (place, tokens lost, supervised tokens lost) of each sample that was too long.
        unanswered: The place of each conversation that goes on after its last answer.
        mistakes: What is wrong with each row that stops the preparation.
    """

    rows: int
    samples: Columns = field(default_factory=lambda: Columns.of([], []))
    groups: list[int] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    cut: list[tuple[str, int, int]] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)

    @contextmanager
    def noting(self, place: str) -> Iterator[None]:
        """Note why a row is not used, where it is not, and go on."""
        try:
            yield
        except RowError as error:
            self.mistakes.append(Mistake(f"{place}: {error}", error.fix))
        except SkippedRow as reason:
            self.dropped.append((str(reason), place))


@dataclass(frozen=True)
class Settings:
    """How conversations become samples: the keys of the experiment of the same names."""

    template: str
    max_length: int
    loss_on: str = "assistant"
    truncation: str = "right"


def encode_rows(
    template: ChatTemplate, settings: Settings, source: dict[str, Any], rows: Sequence[Row]
) -> Chunk:
    """Read, template, tokenise and cut some rows of a source."""
    chunk = Chunk(len(rows))
    said, texts, spans = [], [], []
    for conversation, place, group in _conversations(chunk, source, rows):
        with chunk.noting(place):
            text, learned = template.render_with_spans(conversation, settings.loss_on)
            said.append((conversation, place, group))
            texts.append(text)
            spans.append(learned)
    samples: list[Encoded] = []
    places: list[str] = []
    encoded = template.tokenise(texts, spans)
    for whole, (conversation, place, group) in zip(encoded, said, strict=True):
        with chunk.noting(place):
            fitted = _fitted(template, settings, conversation, whole)
            lost = len(whole.input_ids) - sum(len(part.input_ids) for part in fitted)
            if lost:
                unlearned = supervised_tokens(whole) - sum(map(supervised_tokens, fitted))
                chunk.cut.append((place, lost, unlearned))
            samples += fitted
            places += [place] * len(fitted)
            chunk.groups += [_digest(group.encode())] * len(fitted)
            chunk.texts += [_digest(part.input_ids.tobytes()) for part in fitted]
    chunk.samples = Columns.of(samples, places)
    return chunk


def conversations(source: dict[str, Any], rows: Sequence[Row]) -> Chunk:
    """Read some rows without making samples of them: what is wrong with them, and what is left."""
    chunk = Chunk(len(rows))
    deque(_conversations(chunk, source, rows), maxlen=0)
    return chunk


def _conversations(
    chunk: Chunk, source: dict[str, Any], rows: Sequence[Row]
) -> Iterator[tuple[Conversation, str, str]]:
    """Yield the usable conversations, their places and groups; note the rest."""
    parse, keep = _parser(source), _filter(source)
    for row in rows:
        value = row.value
        found: list[Conversation] = []
        with chunk.noting(row.place):
            if not keep(value):
                raise SkippedRow("left out by `filter`")
            found = [_completed(each, source) for each in parse(value)]
        for conversation in found:
            with chunk.noting(row.place):
                trimmed = trim(conversation)
                if conversation.messages[-1]["role"] != trimmed.messages[-1]["role"]:
                    chunk.unanswered.append(row.place)
                yield trimmed, row.place, _group(source, value, trimmed)


def _completed(conversation: Conversation, source: dict[str, Any]) -> Conversation:
    """Return a conversation with the source's system message and placeholders filled in."""
    conversation = with_system(conversation, source.get("system") or "")
    named = source["vars"] or source["format"] == "assistant"
    return fill(conversation, source["vars"]) if named else conversation


def _parser(source: dict[str, Any]) -> Parse:
    """Return what reads a source's rows."""
    return mapped(**source["map"]) if source.get("map") else FORMATS[source["format"]].parse


def _filter(source: dict[str, Any]) -> Callable[[Any], bool]:
    """Return whether a row is wanted."""
    wanted = source.get("filter")
    if not wanted:
        return lambda row: True
    return arxiv_filter(wanted["categories"], wanted.get("start_date"))


def _fitted(
    template: ChatTemplate, settings: Settings, conversation: Conversation, whole: Encoded
) -> list[Encoded]:
    """Return what fits of a sample: itself, its beginning or last turns, or a text's parts.

    Raises:
        RowError: It is too long, and that is to stop the preparation.
        SkippedRow: It is too long and to be dropped, or nothing is left to learn.
    """
    limit = settings.max_length
    if conversation.messages[0]["role"] == "text":
        fitted = _parts_of_text(whole, limit)
    elif len(whole.input_ids) > limit:
        fitted = [_shortened(template, settings, conversation, whole)]
    else:
        fitted = [whole]
    if any(map(supervised_tokens, fitted)):
        return fitted
    if supervised_tokens(whole):
        raise SkippedRow(f"the answer starts after max_length = {limit}")
    raise SkippedRow("nothing in it is to be learned")


def _parts_of_text(whole: Encoded, limit: int) -> list[Encoded]:
    """Return a text in parts; none is a single token, as nothing can be learned of one."""
    length = len(whole.input_ids)
    cuts = list(range(limit, length, limit))
    if cuts and cuts[-1] == length - 1:
        cuts[-1] -= 1
    return [whole.part(*ends) for ends in pairwise([0, *cuts, length])]


def _shortened(
    template: ChatTemplate, settings: Settings, conversation: Conversation, whole: Encoded
) -> Encoded:
    """Return what `truncation` leaves of a sample that is too long."""
    length, limit = len(whole.input_ids), settings.max_length
    if settings.truncation == "error":
        raise RowError(
            f"{length} tokens, and max_length is {limit}",
            f"raise max_length (now {limit}), or set truncation: to right, left_turns or drop",
        )
    if settings.truncation == "drop":
        raise SkippedRow(f"longer than max_length = {limit}")
    last = None
    if settings.truncation == "left_turns":
        last = _last_turns(template, settings, conversation)
    return last or whole.part(0, limit)


def _last_turns(
    template: ChatTemplate, settings: Settings, conversation: Conversation
) -> Encoded | None:
    """Return the sample of as many of the last turns as fit, None if nothing in it is learned.

    A turn begins with what a user says; a system message stays.
    """
    messages = conversation.messages
    head = messages[:1] if messages[0]["role"] == "system" else []
    for start, message in enumerate(messages):
        if message["role"] != "user" or start <= len(head):
            continue
        rest = Conversation(head + messages[start:], conversation.tools)
        text, spans = template.render_with_spans(rest, settings.loss_on)
        [encoded] = template.tokenise([text], [spans])
        if len(encoded.input_ids) <= settings.max_length:
            return encoded if supervised_tokens(encoded) else None
    return None


def _group(source: dict[str, Any], row: Any, conversation: Conversation) -> str:
    """Return what a row is held out with: the value of a column, or what is asked first."""
    if source.get("group"):
        return group_of(row, source["group"])
    return next(m["content"] for m in conversation.messages if m["role"] in ("user", "text"))


def _digest(content: bytes) -> int:
    """Return 64 bits of BLAKE2; among 10 million texts two are alike once in 370,000."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())


class Encoder:
    """Encodes sources chunk by chunk, in `workers` processes once there are many rows.

    Args:
        base: A base model's folder, for tokenizer and chat template.
        workers: Processes; 1 for this one alone.
    """

    def __init__(self, base: Path, settings: Settings, workers: int) -> None:
        self.base, self.settings, self.workers = base, settings, workers
        self.template = ChatTemplate(base, settings.template)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Encoder":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def chunks(self, source: dict[str, Any], rows: Iterable[Row]) -> Iterator[Chunk]:
        """Yield the chunks of a source in order."""
        rows = iter(rows)
        first = list(islice(rows, FEW))
        parts = _parts(chain(first, rows))
        if len(first) < FEW or self.workers == 1:
            for part in parts:
                yield encode_rows(self.template, self.settings, source, part)
            return
        waiting: deque[Future[Chunk]] = deque()
        for part in parts:
            waiting.append(self._started().submit(_encode_in_worker, source, part))
            if len(waiting) > LOOKAHEAD * self.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers,
                multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
                initargs=(self.base, self.settings),
            )
        return self._pool


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while part := list(islice(rows, CHUNK)):
        yield part


_worker: tuple[ChatTemplate, Settings]


def _begin_worker(base: Path, settings: Settings) -> None:
    """Set a worker up: one thread, Ctrl-C left to its parent, no life without its parent."""
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = ChatTemplate(base, settings.template), settings


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)


def _encode_in_worker(source: dict[str, Any], part: list[Row]) -> Chunk:
    return encode_rows(*_worker, source, part)
