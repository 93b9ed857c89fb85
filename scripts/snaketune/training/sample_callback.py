"""Answers to the sample prompts while training, in samples.jsonl: to see it work."""

from collections.abc import Callable
from pathlib import Path

from snaketune.experiment.schema import Sample
from snaketune.training import processes
from snaketune.training.callbacks import Callback, LoopControl
from snaketune.training.train_record import MetricsRow, SampleRow


class SampleCallback(Callback):
    """Writes the model's answers every `sample.every` iterations, and at both ends.

    Args:
        answer: Generates the answers to `sample.prompts`, greedily: no random number is drawn, so
            training goes on as if nobody had asked.
        collective: Whether generating takes every process, since each holds a part of the weights.
    """

    def __init__(
        self, sample: Sample, file: Path, answer: Callable[[], list[str]], collective: bool
    ) -> None:
        self.sample, self.file, self.answer, self.collective = sample, file, answer, collective

    def on_ready(self, control: LoopControl) -> None:
        """Write what the untrained model answers."""
        if not control.resumed and not control.ends:
            self.write(0)

    def on_iteration(self, row: MetricsRow, control: LoopControl) -> None:
        """Write the answers if it is time."""
        if row.iteration % self.sample.every == 0 or control.ends:
            self.write(row.iteration)

    def write(self, iteration: int) -> None:
        """Generate and append one row for each prompt."""
        if self.sample.prompts and (processes.rank() == 0 or self.collective):
            answers = self.answer()
            if processes.rank() == 0:
                for prompt, answer in zip(self.sample.prompts, answers, strict=True):
                    SampleRow(iteration=iteration, prompt=prompt, answer=answer).append(self.file)
        # the others would wait in the next iteration's collective call, and time out there
        processes.barrier()
