"""What is measured on the rows kept out of training: the loss of each source, and answers.

Which source a sample is of follows from its number in samples.arrow: a source's samples stand
together, in the order and of the numbers that the data report tells.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snaketune.core.files import read_json
from snaketune.data.storage import Pack, Packs, Samples
from snaketune.data.template import IGNORE
from snaketune.export.agreement import loss_figures
from snaketune.models.packed import flatten, loss_sum

_ENDS_IN_A_NUMBER = re.compile(r"\d\W*\Z")


class Heldout:
    """The held-out rows of processed data.

    Args:
        data: The processed data's folder.
    """

    def __init__(self, data: Path) -> None:
        self.packs = Packs(data / "heldout.arrow")
        self._samples = Samples(data / "samples.arrow")
        told = read_json(data / "report.json")["sources"]
        self._labels = [source["source"] for source in told]
        self._ends = np.cumsum([source["samples_kept"] for source in told])

    def source(self, sample: int) -> str:
        """Return the label of a sample's source."""
        return self._labels[int(np.searchsorted(self._ends, sample, side="right"))]

    def by_source(self) -> Iterator[tuple[str, Pack]]:
        """Yield each pack in parts of one source each, with that source's label."""
        for index, pack in enumerate(self.packs):
            labels = [self.source(number) for number in self.packs.samples(index)]
            for label in dict.fromkeys(labels):
                yield label, _only(pack, [each == label for each in labels])

    def questions(self, count: int, tokenizer: Any, end_token_ids: list[int]) -> "HeldoutAnswers":
        """Return at most `count` rows to be answered, spread evenly over all that can be.

        Of a conversation it is the last answer that is asked for, with all before it as prompt. It
        cannot be where nothing comes before (pre-training) or where the answer is cut.
        """
        numbers = {
            number for index in range(len(self.packs)) for number in self.packs.samples(index)
        }
        found = []
        for number in sorted(numbers):
            sample = self._samples[number]
            begin, end = _last_answer(sample.labels)
            if begin > 0 and sample.input_ids[end - 1] in end_token_ids:
                ids = sample.input_ids.tolist()
                reference = tokenizer.decode(ids[begin:end], skip_special_tokens=True).strip()
                prompt = tokenizer.decode(ids[:begin], skip_special_tokens=True).strip()
                if reference:
                    found.append(HeldoutRow(prompt, ids[:begin], [reference], self.source(number)))
        chosen = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
        return HeldoutAnswers([found[index] for index in chosen])


@dataclass(frozen=True)
class HeldoutRow:
    """A row to be answered: what is asked, as text and as token ids, and its own answer."""

    question: str
    prompt: list[int]
    answers: list[str]
    source: str


@dataclass(frozen=True)
class HeldoutAnswers:
    """Rows to be answered, scored as question answering."""

    questions: Sequence[HeldoutRow]

    @property
    def numeric(self) -> bool:
        """Every row's own answer ends in a number, so that numbers can be compared (GSM8K)."""
        return all(_ENDS_IN_A_NUMBER.search(row.answers[0]) for row in self.questions)


def heldout_losses(
    model: Any, heldout: Heldout, where: torch.device
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the mean loss over the supervised tokens of all held-out rows, and of each source's.

    Values are None where there are no held-out rows.
    """
    sums: dict[str, list[Any]] = defaultdict(lambda: [0.0, 0.0, 0])
    model.eval()
    with torch.inference_mode():
        for label, pack in heldout.by_source():
            batch = flatten([pack]).to(where)
            added = loss_sum(model, batch).item(), batch.loss_weight(), len(batch.targets)
            sums[label] = [total + more for total, more in zip(sums[label], added, strict=True)]
    every = [sum(column) for column in zip(*sums.values(), strict=True)] or [0.0, 0.0, 0]
    return loss_figures(*every), {label: loss_figures(*each) for label, each in sums.items()}


def _only(pack: Pack, wanted: Sequence[bool]) -> Pack:
    """Return the pieces of a pack that are wanted."""
    pieces = np.repeat(wanted, pack.lengths)
    weights = None if pack.weights is None else pack.weights[pieces]
    lengths = pack.lengths[np.array(wanted)]
    return Pack(pack.input_ids[pieces], pack.labels[pieces], lengths, weights)


def _last_answer(labels: np.ndarray) -> tuple[int, int]:
    """Return where the last run of learned tokens begins, and what comes after it."""
    learned = np.flatnonzero(labels != IGNORE)
    if not len(learned):
        return 0, 0
    breaks = np.flatnonzero(np.diff(learned) > 1)
    return int(learned[breaks[-1] + 1 if len(breaks) else 0]), int(learned[-1]) + 1
