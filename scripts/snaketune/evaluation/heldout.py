"""What is measured on the rows held out of training: the loss of each source, and answers.

The source of a sample follows from its number in samples.arrow, where the samples of a source are
contiguous, in the order and of the counts in the data report.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from snaketune.core.layout import DataPaths
from snaketune.data.data_record import DataReport
from snaketune.data.storage import Pack, Packs, Samples
from snaketune.data.template import IGNORE
from snaketune.evaluation.evaluation_record import HeldoutLoss
from snaketune.experiment.probe_kinds import (
    REFERENCE_NUMBER,
    Metric,
    QuestionAnswering,
    Score,
    Scored,
)
from snaketune.export.agreement import loss_figures
from snaketune.models.packed import flatten, loss_sum

_ENDS_IN_A_NUMBER = re.compile(r"\d\W*\Z")


class Heldout:
    """The held-out rows of processed data.

    Args:
        data: The processed data's folder.
    """

    def __init__(self, data: Path) -> None:
        files = DataPaths(data)
        self.packs = Packs(files.heldout)
        self._samples = Samples(files.samples)
        sources = DataReport.read(files.report).sources
        self._labels = [source.source for source in sources]
        self._ends = np.cumsum([source.samples_kept for source in sources])

    def source(self, sample: int) -> str:
        """The label of a sample's source."""
        return self._labels[int(np.searchsorted(self._ends, sample, side="right"))]

    def by_source(self) -> Iterator[tuple[str, Pack]]:
        """Yield every pack split by source, each part with its source's label."""
        for index, pack in enumerate(self.packs):
            labels = [self.source(number) for number in self.packs.samples(index)]
            for label in dict.fromkeys(labels):
                yield label, _only(pack, [other == label for other in labels])

    def questions(self, count: int, tokenizer: Any, end_token_ids: list[int]) -> "HeldoutAnswers":
        """At most `count` rows to answer, spread evenly over all that can be.

        The last answer of a conversation is asked for, with everything before it as prompt. A row
        is unusable where nothing comes before (pre-training) or where the answer is truncated.
        """
        numbers = {
            number for index in range(len(self.packs)) for number in self.packs.samples(index)
        }
        rows = []
        for number in sorted(numbers):
            sample = self._samples[number]
            begin, end = _last_answer(sample.labels)
            if begin > 0 and sample.input_ids[end - 1] in end_token_ids:
                ids = sample.input_ids.tolist()
                reference = tokenizer.decode(ids[begin:end], skip_special_tokens=True).strip()
                prompt = tokenizer.decode(ids[:begin], skip_special_tokens=True).strip()
                if reference:
                    rows.append(HeldoutRow(prompt, ids[:begin], [reference]))
        chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
        return heldout_answers([rows[index] for index in chosen])


@dataclass(frozen=True)
class HeldoutRow:
    """A row to answer: its prompt as text and as token ids, and its own answer."""

    question: str
    prompt: list[int]
    answers: list[str]


@dataclass(frozen=True)
class HeldoutAnswers(Scored):
    """Rows to answer, scored as question answering."""

    questions: Sequence[HeldoutRow]
    kind = QuestionAnswering.model_fields["kind"].default
    metrics: ClassVar[tuple[Metric, ...]] = QuestionAnswering.metrics


class NumericHeldoutAnswers(HeldoutAnswers):
    """Rows whose own answers all end in a number, such as GSM8K's: that number decides."""

    metrics: ClassVar[tuple[Metric, ...]] = (*QuestionAnswering.metrics, REFERENCE_NUMBER)

    def is_right(self, scores: Mapping[str, Score]) -> bool:
        """Whether the last number is the reference's."""
        return bool(scores[REFERENCE_NUMBER.name])


def heldout_answers(rows: Sequence[HeldoutRow]) -> HeldoutAnswers:
    """Rows to answer, with the metrics that apply to all of them."""
    numeric = all(_ENDS_IN_A_NUMBER.search(row.answers[0]) for row in rows)
    return NumericHeldoutAnswers(rows) if numeric else HeldoutAnswers(rows)


def heldout_losses(
    model: Any, heldout: Heldout, where: torch.device
) -> tuple[HeldoutLoss, dict[str, HeldoutLoss]]:
    """The loss over the supervised tokens of all held-out rows, and of the rows of each source."""
    # by source: the sum of the weighted losses, of the weights, and the number of tokens
    sums: dict[str, list[Any]] = defaultdict(lambda: [0.0, 0.0, 0])
    model.eval()
    with torch.inference_mode():
        for label, pack in heldout.by_source():
            batch = flatten([pack]).to(where)
            added = loss_sum(model, batch).item(), batch.loss_weight(), len(batch.targets)
            sums[label] = [total + more for total, more in zip(sums[label], added, strict=True)]
    totals = [sum(column) for column in zip(*sums.values(), strict=True)] or [0.0, 0.0, 0]
    return _loss(totals), {label: _loss(own) for label, own in sums.items()}


def _loss(sums: Sequence[Any]) -> HeldoutLoss:
    total, weight, tokens = sums
    return HeldoutLoss.model_validate(loss_figures(total, weight, tokens))


def _only(pack: Pack, wanted: Sequence[bool]) -> Pack:
    """The wanted pieces of a pack, one flag for each piece."""
    pieces = np.repeat(wanted, pack.lengths)
    weights = None if pack.weights is None else pack.weights[pieces]
    lengths = pack.lengths[np.array(wanted)]
    return Pack(pack.input_ids[pieces], pack.labels[pieces], lengths, weights)


def _last_answer(labels: np.ndarray) -> tuple[int, int]:
    """Where the last run of supervised tokens begins and ends; (0, 0) without any."""
    supervised = np.flatnonzero(labels != IGNORE)
    if not len(supervised):
        return 0, 0
    breaks = np.flatnonzero(np.diff(supervised) > 1)
    return int(supervised[breaks[-1] + 1 if len(breaks) else 0]), int(supervised[-1]) + 1
