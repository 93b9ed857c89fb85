"""What `--config experiment=X model=X/iter_N` asks to talk to. The Snakefile reads it: no torch."""

import re
from collections.abc import Mapping
from typing import Any

from snaketune.core.errors import UserError, nearest
from snaketune.experiment import Studies
from snaketune.experiment.targets import explain_unknown

KEYS = ("experiment", "model")


def read_models(config: Mapping[str, Any], studies: Studies, program: str) -> list[str]:
    """Return the names of the models to talk to, as the endpoint has them: X or X/iter_N.

    `experiment` names one or several, separated by spaces or commas; `model` kept checkpoints of
    them, iter_N alone where there is one experiment. The checkpoints then take the experiments'
    place.

    Args:
        config: Snakemake's, which makes a number of `experiment=1`.
        program: The rule that is asked, for the advice.

    Raises:
        UserError: None is named, or one that there is not or that cannot be built.
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
            "nothing says which model to talk to.\n"
            f"  Fix: name an experiment, e.g. snakemake {program} --config experiment={example}"
        )
    for name in dict.fromkeys([*_names(config.get("experiment")), *names]):
        _require(name, studies, program)
    return names


def named_models(config: Mapping[str, Any]) -> list[str]:
    """Return the same, whether there are such models or not."""
    experiments = _names(config.get("experiment"))
    return [_whole(name, experiments) for name in _names(config.get("model"))] or experiments


def read_model(config: Mapping[str, Any], studies: Studies, program: str) -> str:
    """Return the same where only one model is talked to.

    Raises:
        UserError: As `read_models`, or there are several.
    """
    models = read_models(config, studies, program)
    if len(models) > 1:
        raise UserError(
            f"{program} talks to one model, and {', '.join(models)} are {len(models)}.\n"
            f"  Fix: snakemake {program} --config experiment={models[0]}"
        )
    return models[0]


def weights_of(model: str, studies: Studies) -> str:
    """Return the target that has a model's weights: its adapter, or all of a full fine-tune."""
    full = studies.experiments[model.partition("/")[0]].config.method.name == "full"
    return f"experiments/{model}/{'merged' if full else 'adapter'}"


def _names(given: object) -> list[str]:
    words = given if isinstance(given, list) else [] if given is None else [given]
    parts = [part for word in words for part in re.split(r"[\s,]+", str(word))]
    names = (part.strip("/").removeprefix("./").removeprefix("experiments/") for part in parts)
    return list(dict.fromkeys(filter(None, names)))


def _whole(name: str, experiments: list[str]) -> str:
    """Return iter_N as X/iter_N."""
    if re.fullmatch(r"iter_\d+", name) and len(experiments) == 1:
        return f"{experiments[0]}/{name}"
    return name


def _require(name: str, studies: Studies, program: str) -> None:
    """Raise UserError unless there is such a model, or it can be built."""
    experiment, _, iteration = name.partition("/")
    if iteration and not re.fullmatch(r"iter_[1-9]\d*", iteration):
        raise UserError(
            f"'{name}' is no model.\n  Fix: {experiment} for the end of its training, or "
            f"{experiment}/iter_N for a kept checkpoint"
        )
    variants = [each.name for each in studies.experiments.values() if each.study == experiment]
    if experiment not in studies.experiments and variants:
        raise UserError(
            f"{experiment} is a study of {', '.join(variants)}.\n"
            f"  Fix: name one of them, e.g. snakemake {program} --config experiment={variants[0]}"
        )
    known = experiment in studies.experiments
    target = weights_of(name, studies) if known else f"experiments/{name}/merged"
    if message := explain_unknown(target, studies):
        raise UserError(message)
