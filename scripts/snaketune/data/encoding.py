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
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from snaketune.data.conversation import (
    Conversation,
    RowError,
    Unusable,
    fill,
    trim,
    with_system,
)
from snaketune.data.formats import FORMATS, Parse, arxiv_filter, group_of, mapped
from snaketune.data.reading import Row
from snaketune.data.storage import Columns
from snaketune.data.template import ChatTemplate, Encoded, supervised_tokens

CHUNK = 500
"""Rows that are encoded together."""

FEW = 4 * CHUNK
"""Rows that are sooner encoded here than processes are started."""

LOOKAHEAD = 3
"""Chunks for each worker that are read before the first of them is needed."""


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
        mistakes: `file:line: reason` of each row of another shape.
    """

    rows: int
    samples: Columns = field(default_factory=lambda: Columns.of([]))
    groups: list[int] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    cut: list[tuple[str, int, int]] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


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
        try:
            text, supervised = template.render_with_spans(conversation, settings.loss_on)
        except RowError as error:
            chunk.mistakes.append(f"{place}: {error}")
            continue
        said.append((conversation, place, group))
        texts.append(text)
        spans.append(supervised)
    samples = []
    encoded = template.tokenise(texts, spans)
    for whole, (conversation, place, group) in zip(encoded, said, strict=True):
        for sample in _fitted(chunk, template, settings, conversation, whole, place):
            samples.append(sample)
            chunk.groups.append(_digest(group.encode()))
            chunk.texts.append(_digest(sample.input_ids.tobytes()))
    chunk.samples = Columns.of(samples)
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
    parse, keep = parser_of(source), filter_of(source)
    for row in rows:
        value = row.value
        try:
            if not keep(value):
                chunk.dropped.append(("left out by `filter`", row.place))
                continue
            found = [_completed(each, source) for each in parse(value)]
        except RowError as error:
            chunk.mistakes.append(f"{row.place}: {error}")
            continue
        for conversation in found:
            try:
                trimmed = trim(conversation)
                if conversation.messages[-1]["role"] != trimmed.messages[-1]["role"]:
                    chunk.unanswered.append(row.place)
                yield trimmed, row.place, _group(source, value, trimmed)
            except Unusable as error:
                chunk.dropped.append((str(error), row.place))
            except RowError as error:
                chunk.mistakes.append(f"{row.place}: {error}")


def _completed(conversation: Conversation, source: dict[str, Any]) -> Conversation:
    """Return a conversation with the source's system message and placeholders filled in."""
    conversation = with_system(conversation, source.get("system") or "")
    named = source["vars"] or source["format"] == "assistant"
    return fill(conversation, source["vars"]) if named else conversation


def parser_of(source: dict[str, Any]) -> Parse:
    """Return what reads a source's rows."""
    return mapped(source["map"]) if source.get("map") else FORMATS[source["format"]]


def filter_of(source: dict[str, Any]) -> Callable[[Any], bool]:
    """Return whether a row is wanted."""
    wanted = source.get("filter")
    if not wanted:
        return lambda row: True
    return arxiv_filter(wanted["categories"], wanted.get("start_date"))


def _fitted(
    chunk: Chunk,
    template: ChatTemplate,
    settings: Settings,
    conversation: Conversation,
    whole: Encoded,
    place: str,
) -> list[Encoded]:
    """Return what fits of a sample, noting what is lost; [] if nothing is left to learn."""
    length, limit = len(whole.input_ids), settings.max_length
    if conversation.messages[0]["role"] == "text":
        parts = [whole.part(start, start + limit) for start in range(0, length, limit)]
        return [part for part in parts if supervised_tokens(part)]
    cut = whole
    if length > limit:
        if settings.truncation == "error":
            chunk.mistakes.append(f"{place}: {length} tokens, and max_length is {limit}")
            return []
        if settings.truncation == "left_turns":
            cut = _last_turns(template, settings, conversation) or cut
        cut = cut.part(0, limit)
        if settings.truncation == "drop":
            chunk.dropped.append((f"longer than max_length = {limit}", place))
            return []
    if not supervised_tokens(cut):
        reason = f"the answer starts after max_length = {limit}" if length > limit else "no loss"
        chunk.dropped.append((reason, place))
        return []
    if length > limit:
        lost = supervised_tokens(whole) - supervised_tokens(cut)
        chunk.cut.append((place, length - len(cut.input_ids), lost))
    return [cut]


def _last_turns(
    template: ChatTemplate, settings: Settings, conversation: Conversation
) -> Encoded | None:
    """Return the sample of as many of the last turns as fit, or None if the last alone does not.

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
            return encoded
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
