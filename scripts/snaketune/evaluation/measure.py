"""Everything that is measured on a model, and what report.json tells of all models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaketune.evaluation.batched_answers import Told, tell
from snaketune.evaluation.harness import Harness
from snaketune.evaluation.heldout import Heldout, heldout_losses
from snaketune.evaluation.probes import Asked, ask, habits, read_probes, summary
from snaketune.experiment.probe_files import HELDOUT_ANSWERS
from snaketune.experiment.resolved import Resolved
from snaketune.models.generation import prompt_ids
from snaketune.models.load import device


@dataclass(frozen=True)
class Tasks:
    """What every model is measured by."""

    prompts: Sequence[str]
    probes: Mapping[str, Asked]
    heldout: Heldout
    harness: Harness | None
    template: dict[str, Any]
    max_new_tokens: int

    @staticmethod
    def of(
        experiment: Resolved, data: Path, probes: Path, tokenizer: Any, template: dict[str, Any]
    ) -> "Tasks":
        """Read all that is asked for, so that a mistake in it is told before any model is loaded.

        Args:
            data: The processed data's folder.
            probes: The folder with the questions of the probes; its parent has the experiments.
            template: What data.json tells of it.

        Raises:
            UserError: A probe's file has mistakes, or a task of lm_eval cannot be run.
        """
        config, heldout = experiment.config.evaluate, Heldout(data)
        asked = read_probes(probes, config.probes, experiment.persona)
        if config.heldout_answers:
            ends = template["end_token_ids"]
            rows = heldout.questions(config.heldout_answers, tokenizer, ends)
            asked[HELDOUT_ANSWERS] = rows
        harness = Harness(experiment.lm_eval) if experiment.lm_eval else None
        limit = config.max_new_tokens
        return Tasks(experiment.prompts, asked, heldout, harness, template, limit)


def measure(model: Any, tokenizer: Any, tasks: Tasks, name: str) -> dict[str, Any]:
    """Return what one model answers and how it scores.

    Args:
        name: What progress lines call the model.

    Returns:
        `heldout` and `heldout_by_source` (losses), `answers` (to the prompts, Told), `probes` (what
        `ask` found, by probe) and `lm_eval`.
    """
    template, limit = tasks.template, tasks.max_new_tokens
    loss, by_source = heldout_losses(model, tasks.heldout, device())
    prompts = prompt_ids(tokenizer, tasks.prompts, template.get("system"))
    ends = template["end_token_ids"]
    return {
        "heldout": loss,
        "heldout_by_source": by_source,
        "answers": tell(model, tokenizer, prompts, limit, ends, f"{name}: prompts"),
        "probes": {
            probe: ask(model, tokenizer, questions, template, limit, f"{name}: {probe}")
            for probe, questions in tasks.probes.items()
        },
        "lm_eval": tasks.harness.measure(model, tokenizer) if tasks.harness else {},
    }


def figures(
    tasks: Tasks, measured: Mapping[str, dict[str, Any]], probed: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return of all models what report.json has of `measure`: losses, answers, probes, lm_eval.

    Args:
        measured: By model, what `measure` returned.
        probed: The rows of probes.jsonl.
    """
    every = {model: _all_answers(found) for model, found in measured.items()}
    return {
        "heldout": _each(measured, "heldout"),
        "heldout_by_source": _turned(_each(measured, "heldout_by_source")),
        "answers": [
            {"prompt": prompt} | {name: told["answers"][i].text for name, told in measured.items()}
            for i, prompt in enumerate(tasks.prompts)
        ],
        "probes": summary(tasks.probes, probed) | habits(every),
        "lm_eval": {
            task: _turned(each) for task, each in _turned(_each(measured, "lm_eval")).items()
        },
    }


def _all_answers(found: dict[str, Any]) -> list[Told]:
    every = [*found["answers"], *(each for probe in found["probes"].values() for each in probe)]
    return [each for each in every if isinstance(each, Told)]


def _each(measured: Mapping[str, dict[str, Any]], key: str) -> dict[str, Any]:
    return {model: found[key] for model, found in measured.items()}


def _turned(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what is told by model and name, by name and model."""
    names = next(iter(found.values()))
    return {name: {model: told[name] for model, told in found.items()} for name in names}
