"""Read model names from `--config experiment=X model=X/iter_N`. The Snakefile does: no torch."""

import re
from collections.abc import Mapping

from snaketune.core.errors import UserError, nearest
from snaketune.core.layout import EXPERIMENTS, ExperimentPaths, iteration_number
from snaketune.experiment import Studies
from snaketune.experiment.targets import explain_unknown

KEYS = ("experiment", "model")


def read_models(config: Mapping[str, object], studies: Studies, program: str) -> list[str]:
    """Read the models to talk to, named as the endpoint names them: X or X/iter_N.

    `experiment` names one or several, separated by spaces or commas. `model` names kept checkpoints
    instead, iter_N alone if there is one experiment.

    Args:
        config: Snakemake's, in which `experiment=1` is a number.
        program: The rule that asks, for messages.

    Raises:
        UserError: No model is named, or one that doesn't exist and cannot be built.
    """
    example = next(iter(studies.experiments), "X")
    for key in config:
        if key not in KEYS:
            raise UserError(
                f"{program} has no setting '{key}'.{nearest(key, KEYS)}\n"
                f"  Fix: snakemake {program} --config experiment={example} [model=iter_N], or "
                f"python scripts/{program}.py --help"
            )
    names = named_models(config)
    if not names:
        raise UserError(
            "no model specified.\n"
            f"  Fix: name an experiment, e.g. snakemake {program} --config experiment={example}"
        )
    for name in dict.fromkeys([*_names(config.get("experiment")), *names]):
        _require(name, studies, program)
    return names


def named_models(config: Mapping[str, object]) -> list[str]:
    """Read the same names without checking that the models exist."""
    experiments = _names(config.get("experiment"))
    return [_qualify(name, experiments) for name in _names(config.get("model"))] or experiments


def read_model(config: Mapping[str, object], studies: Studies, program: str) -> str:
    """Read the name of the model, for a program that talks to one model only.

    Raises:
        UserError: As `read_models`, or several are named.
    """
    models = read_models(config, studies, program)
    if len(models) > 1:
        raise UserError(
            f"{program} talks to one model, but {len(models)} are named: {', '.join(models)}.\n"
            f"  Fix: snakemake {program} --config experiment={models[0]}"
        )
    return models[0]


def weights_of(model: str, studies: Studies) -> str:
    """The target with a model's weights: its adapter, or the full model of a full fine-tune."""
    full = studies.experiments[model.partition("/")[0]].config.method.name == "full"
    paths = ExperimentPaths(model)
    return f"{paths.merged() if full else paths.adapter()}"


def _names(value: object) -> list[str]:
    words = value if isinstance(value, list) else [] if value is None else [value]
    parts = [part for word in words for part in re.split(r"[\s,]+", str(word))]
    # people complete paths with Tab: experiments/X/ means X
    prefix = f"{EXPERIMENTS}/"
    names = (part.strip("/").removeprefix("./").removeprefix(prefix) for part in parts)
    return list(dict.fromkeys(filter(None, names)))


def _qualify(name: str, experiments: list[str]) -> str:
    """Turn iter_N into X/iter_N."""
    if iteration_number(name) and len(experiments) == 1:
        return f"{experiments[0]}/{name}"
    return name


def _require(name: str, studies: Studies, program: str) -> None:
    """Raise UserError unless a model exists or can be built."""
    experiment, _, iteration = name.partition("/")
    if iteration and not iteration_number(iteration):
        raise UserError(
            f"'{name}' is not a model name.\n  Fix: {experiment} for the end of its training, or "
            f"{experiment}/iter_N for a kept checkpoint"
        )
    variants = [
        variant.name for variant in studies.experiments.values() if variant.study == experiment
    ]
    if experiment not in studies.experiments and variants:
        raise UserError(
            f"{experiment} is a study of {', '.join(variants)}.\n"
            f"  Fix: name one of them, e.g. snakemake {program} --config experiment={variants[0]}"
        )
    known = experiment in studies.experiments
    target = weights_of(name, studies) if known else f"{ExperimentPaths(name).merged()}"
    if message := explain_unknown(target, studies):
        raise UserError(message)
