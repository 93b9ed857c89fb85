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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from snaketune.data.formats import FORMATS, Conversation, fill, trim
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
        samples: Token ids and labels of the samples made of them.
        questions: For each sample a digest of what is asked first, uint64.
        texts: For each sample a digest of all that is said, uint64.
        dropped: (reason, place) of each conversation that is not used.
        cut: (place, tokens lost) of each sample that is too long.
        mistakes: `file:line: reason` of each row of another shape.
    """

    rows: int
    samples: Columns = field(default_factory=lambda: Columns.of([]))
    questions: list[int] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    cut: list[tuple[str, int]] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def encode_rows(
    template: ChatTemplate, source: dict[str, Any], max_length: int, rows: Sequence[Row]
) -> Chunk:
    """Read, template, tokenise and cut some rows of a source."""
    chunk = Chunk(len(rows))
    conversations, places = _conversations(chunk, source, rows)
    texts, spans, said = [], [], []
    for conversation, place in zip(conversations, places, strict=True):
        try:
            text, supervised = template.render_with_spans(conversation)
        except ValueError as error:
            chunk.mistakes.append(f"{place}: {error}")
            continue
        texts.append(text)
        spans.append(supervised)
        said.append((conversation, place))
    samples = []
    for whole, (conversation, place) in zip(template.tokenise(texts, spans), said, strict=True):
        cut = _cut(chunk, whole, place, max_length)
        if cut:
            samples.append(cut)
            chunk.questions.append(_digest(_question(conversation)))
            chunk.texts.append(_digest("\0".join(message["content"] for message in conversation)))
    chunk.samples = Columns.of(samples)
    return chunk


def _conversations(
    chunk: Chunk, source: dict[str, Any], rows: Sequence[Row]
) -> tuple[list[Conversation], list[str]]:
    parse, conversations, places = FORMATS[source["format"]], [], []
    for row in rows:
        try:
            found = [trim(fill(each, source["vars"])) for each in parse(row.value)]
        except ValueError as error:
            chunk.mistakes.append(f"{row.place}: {error}")
            continue
        for conversation in found:
            if conversation:
                conversations.append(conversation)
                places.append(row.place)
            else:
                chunk.dropped.append(("no answer to learn from", row.place))
    return conversations, places


def _cut(chunk: Chunk, whole: Encoded, place: str, max_length: int) -> Encoded | None:
    """Return what fits of a sample, noting what is lost; None if nothing is left to learn."""
    cut = Encoded(whole.input_ids[:max_length], whole.labels[:max_length])
    if not supervised_tokens(cut):
        chunk.dropped.append((f"the answer starts after max_length = {max_length}", place))
        return None
    if len(cut.input_ids) < len(whole.input_ids):
        chunk.cut.append((place, len(whole.input_ids) - max_length))
    return cut


def _question(conversation: Conversation) -> str:
    return next(message["content"] for message in conversation if message["role"] == "user")


def _digest(text: str) -> int:
    """Return 64 bits of a text's BLAKE2; among 10 million texts two are alike once in 370,000."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


class Encoder:
    """Encodes sources chunk by chunk, in `workers` processes once there are many rows.

    Args:
        base: A base model's folder, for tokenizer and chat template.
        workers: Processes; 1 for this one alone.
    """

    def __init__(self, base: Path, template: str, max_length: int, workers: int) -> None:
        self.settings = (base, template)
        self.template = ChatTemplate(*self.settings)
        self.max_length, self.workers = max_length, workers
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
        if len(first) < FEW or self.workers == 1:
            for part in _parts(chain(first, rows)):
                yield encode_rows(self.template, source, self.max_length, part)
            return
        waiting: deque[Future[Chunk]] = deque()
        for part in _parts(chain(first, rows)):
            waiting.append(self._submit(source, part))
            if len(waiting) > LOOKAHEAD * self.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _submit(self, source: dict[str, Any], part: list[Row]) -> Future[Chunk]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers,
                multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
                initargs=self.settings,
            )
        return self._pool.submit(_encode_in_worker, source, self.max_length, part)


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while part := list(islice(rows, CHUNK)):
        yield part


_worker_template: ChatTemplate


def _begin_worker(base: Path, template: str) -> None:
    """Set a worker up: one thread, Ctrl-C left to its parent, no life without its parent."""
    global _worker_template
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker_template = ChatTemplate(base, template)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)


def _encode_in_worker(source: dict[str, Any], max_length: int, part: list[Row]) -> Chunk:
    return encode_rows(_worker_template, source, max_length, part)
