"""What a transformers Trainer does in each update: its seconds and tokens."""

import time

from transformers import Trainer, TrainerCallback


class Stopwatch(TrainerCallback):
    """Notes each update of a trainer whose data is collated in its own process."""

    def __init__(self, trainer: Trainer) -> None:
        self.updates: list[dict] = []
        self._counts: list[tuple[int, int]] = []
        trainer.add_callback(self)
        collate = trainer.data_collator

        def counting(features: list) -> dict:
            batch = collate(features)
            scored = int((batch["labels"][:, 1:] != -100).sum())
            self._counts.append((batch["input_ids"].numel(), scored))
            return batch

        trainer.data_collator = counting

    def on_step_begin(self, *_: object, **__: object) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        seconds = time.perf_counter() - self._started
        tokens, supervised = self._counts[len(self.updates)]
        self.updates.append({"seconds": seconds, "tokens": tokens, "supervised": supervised})
