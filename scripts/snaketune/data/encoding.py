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
from snaketune.data.data_spec import SourceSpec
from snaketune.data.formats import FORMATS
from snaketune.data.formats.flat_formats import arxiv_filter, mapped
from snaketune.data.formats.format_registry import Parse
from snaketune.data.formats.row_fields import group_of
from snaketune.data.storage import ArrowColumns
from snaketune.data.template import ChatTemplate, EncodedSample, supervised_tokens
from snaketune.rows.reading import Row

CHUNK = 500
"""Rows that are encoded together."""

FEW = 4 * CHUNK
"""With fewer rows, starting processes takes longer than encoding them in this one."""

LOOKAHEAD = 3
"""Chunks for each worker that are read before the first of them is needed."""


class Mistake(NamedTuple):
    """What is wrong with a row, as `file:line: reason`, and its fix, "" for the usual one."""

    message: str
    fix: str


@dataclass
class Chunk:
    """The samples of some rows, and what became of the other rows, in their order.

    Attributes:
        rows: How many were read.
        groups: For each sample a digest of what it is held out with, uint64.
        texts: For each sample a digest of its tokens, uint64.
        dropped: (reason, place) of each conversation that is not used.
        cut: (place, tokens lost, supervised tokens lost) of each sample that was too long.
        unanswered: The place of each conversation that goes on after its last answer.
        mistakes: What is wrong with each row that stops the preparation.
    """

    rows: int
    samples: ArrowColumns = field(default_factory=lambda: ArrowColumns.of([], []))
    groups: list[int] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    cut: list[tuple[str, int, int]] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)

    @contextmanager
    def collecting_errors(self, place: str) -> Iterator[None]:
        """Record why the row of the block is not used, instead of stopping at it."""
        try:
            yield
        except RowError as error:
            self.mistakes.append(Mistake(f"{place}: {error}", error.fix))
        except SkippedRow as reason:
            self.dropped.append((str(reason), place))


@dataclass(frozen=True)
class EncodingOptions:
    """How conversations become samples; the attributes are keys of the experiment file."""

    template: str
    max_length: int
    loss_on: str = "assistant"
    truncation: str = "right"


def encode_rows(
    template: ChatTemplate, options: EncodingOptions, source: SourceSpec, rows: Sequence[Row]
) -> Chunk:
    """Read, template, tokenise and cut some rows of a source."""
    chunk = Chunk(len(rows))
    origins, texts, spans = [], [], []
    for conversation, place, group in _conversations(chunk, source, rows):
        with chunk.collecting_errors(place):
            text, learned = template.render_with_spans(conversation, options.loss_on)
            origins.append((conversation, place, group))
            texts.append(text)
            spans.append(learned)
    samples: list[EncodedSample] = []
    places: list[str] = []
    encoded = template.tokenise(texts, spans)
    for whole, (conversation, place, group) in zip(encoded, origins, strict=True):
        with chunk.collecting_errors(place):
            fitted = _fitted(template, options, conversation, whole)
            lost = len(whole.input_ids) - sum(len(part.input_ids) for part in fitted)
            if lost:
                unlearned = supervised_tokens(whole) - sum(map(supervised_tokens, fitted))
                chunk.cut.append((place, lost, unlearned))
            samples += fitted
            places += [place] * len(fitted)
            chunk.groups += [_digest(group.encode())] * len(fitted)
            chunk.texts += [_digest(part.input_ids.tobytes()) for part in fitted]
    chunk.samples = ArrowColumns.of(samples, places)
    return chunk


def conversations(source: SourceSpec, rows: Sequence[Row]) -> Chunk:
    """Check some rows without making samples of them."""
    chunk = Chunk(len(rows))
    deque(_conversations(chunk, source, rows), maxlen=0)
    return chunk


def _conversations(
    chunk: Chunk, source: SourceSpec, rows: Sequence[Row]
) -> Iterator[tuple[Conversation, str, str]]:
    """Yield the usable conversations, their places and groups; record the other rows."""
    parse, keep = _parser(source), _row_filter(source)
    for row in rows:
        value = row.value
        parsed: list[Conversation] = []
        with chunk.collecting_errors(row.place):
            if not keep(value):
                raise SkippedRow("left out by `filter`")
            parsed = [_completed(conversation, source) for conversation in parse(value)]
        for conversation in parsed:
            with chunk.collecting_errors(row.place):
                trimmed = trim(conversation)
                if conversation.messages[-1]["role"] != trimmed.messages[-1]["role"]:
                    chunk.unanswered.append(row.place)
                yield trimmed, row.place, _group(source, value, trimmed)


def _completed(conversation: Conversation, source: SourceSpec) -> Conversation:
    """Add the source's system message, and fill in its placeholders."""
    conversation = with_system(conversation, source.system)
    # elsewhere {{...}} is left alone: code and templates in rows have such braces too
    named = source.vars or source.format == "assistant"
    return fill(conversation, source.vars) if named else conversation


def _parser(source: SourceSpec) -> Parse:
    return mapped(**source.map) if source.map else FORMATS[source.format].parse


def _row_filter(source: SourceSpec) -> Callable[[Any], bool]:
    if not source.filter:
        return lambda row: True
    return arxiv_filter(source.filter.categories, source.filter.start_date)


def _fitted(
    template: ChatTemplate,
    options: EncodingOptions,
    conversation: Conversation,
    whole: EncodedSample,
) -> list[EncodedSample]:
    """Fit a sample into `max_length`: whole, its beginning or last turns, or a text in parts.

    Raises:
        RowError: It is too long with `truncation: error`.
        SkippedRow: It is too long with `truncation: drop`, or nothing is left to learn.
    """
    limit = options.max_length
    if conversation.messages[0]["role"] == "text":
        fitted = _parts_of_text(whole, limit)
    elif len(whole.input_ids) > limit:
        fitted = [_shortened(template, options, conversation, whole)]
    else:
        fitted = [whole]
    if any(map(supervised_tokens, fitted)):
        return fitted
    if supervised_tokens(whole):
        raise SkippedRow(f"the answer starts after max_length = {limit}")
    raise SkippedRow("no token in it is supervised")


def _parts_of_text(whole: EncodedSample, limit: int) -> list[EncodedSample]:
    """Split a text; no part is a single token, as nothing could be learned from it."""
    length = len(whole.input_ids)
    cuts = list(range(limit, length, limit))
    if cuts and cuts[-1] == length - 1:
        cuts[-1] -= 1
    return [whole.part(*ends) for ends in pairwise([0, *cuts, length])]


def _shortened(
    template: ChatTemplate,
    options: EncodingOptions,
    conversation: Conversation,
    whole: EncodedSample,
) -> EncodedSample:
    """Shorten a sample that is too long, as `truncation` says."""
    length, limit = len(whole.input_ids), options.max_length
    if options.truncation == "error":
        raise RowError(
            f"{length} tokens, and max_length is {limit}",
            f"raise max_length (now {limit}), or set truncation: to right, left_turns or drop",
        )
    if options.truncation == "drop":
        raise SkippedRow(f"longer than max_length = {limit}")
    last = None
    if options.truncation == "left_turns":
        last = _last_turns(template, options, conversation)
    return last or whole.part(0, limit)


def _last_turns(
    template: ChatTemplate, options: EncodingOptions, conversation: Conversation
) -> EncodedSample | None:
    """Encode as many of the last turns as fit; None if nothing in them is learned.

    A turn begins with a user's message; a system message stays.
    """
    messages = conversation.messages
    head = messages[:1] if messages[0]["role"] == "system" else []
    for start, message in enumerate(messages):
        if message["role"] != "user" or start <= len(head):
            continue
        rest = Conversation(head + messages[start:], conversation.tools)
        text, spans = template.render_with_spans(rest, options.loss_on)
        [encoded] = template.tokenise([text], [spans])
        if len(encoded.input_ids) <= options.max_length:
            return encoded if supervised_tokens(encoded) else None
    return None


def _group(source: SourceSpec, row: Any, conversation: Conversation) -> str:
    """What a row is held out together with: the value of a column, or the first question."""
    if source.group:
        return group_of(row, source.group)
    return next(m["content"] for m in conversation.messages if m["role"] in ("user", "text"))


def _digest(content: bytes) -> int:
    """64 bits of BLAKE2: in 370,000 sets of 10 million texts, one has two equal digests."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())


class Encoder:
    """Encodes sources chunk by chunk, in `workers` processes once there are many rows.

    Args:
        base: A base model's folder, for tokenizer and chat template.
        workers: Processes; 1 for this one alone.
    """

    def __init__(self, base: Path, options: EncodingOptions, workers: int) -> None:
        self.base, self.options, self.workers = base, options, workers
        self.template = ChatTemplate(base, options.template)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Encoder":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def chunks(self, source: SourceSpec, rows: Iterable[Row]) -> Iterator[Chunk]:
        """Yield the chunks of a source in order."""
        rows = iter(rows)
        first = list(islice(rows, FEW))
        parts = _parts(chain(first, rows))
        if len(first) < FEW or self.workers == 1:
            for part in parts:
                yield encode_rows(self.template, self.options, source, part)
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
                initargs=(self.base, self.options),
            )
        return self._pool


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while part := list(islice(rows, CHUNK)):
        yield part


_worker: tuple[ChatTemplate, EncodingOptions]


def _begin_worker(base: Path, options: EncodingOptions) -> None:
    """Set a worker up: one thread, Ctrl-C handled by its parent alone, an end with its parent."""
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # or workers x threads exceeds the cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = ChatTemplate(base, options.template), options


def _end_with_parent() -> None:
    # a parent killed by SIGKILL cannot stop its workers, which would wait for rows for ever
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)


def _encode_in_worker(source: SourceSpec, part: list[Row]) -> Chunk:
    return encode_rows(*_worker, source, part)
