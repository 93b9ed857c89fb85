"""What reruns when: a stage's id is the digest of exactly the settings that change its result.

Which these are follows from the marks on the schema's fields (affects.py). A comment, a
description, the order of keys, logging and the checkpoint interval are in none of the ids, so
editing them retrains nothing. Values that stand at their default are left out of the key of
training and of the newer parts of the evaluation: a setting added later changes no old id.
"""

import re
from collections.abc import Iterable
from typing import Any

from snaketune.core.digests import digest
from snaketune.experiment.affects import Affects, marked
from snaketune.experiment.experiment import Experiment
from snaketune.experiment.schema import Strict

DATA_VERSION = 2
"""Raise it when the data code makes other tokens, labels or packs of the same rows."""

TRAIN_VERSION = 2
"""Raise it when the training code makes other weights of the same data, or a default changes."""

BASE_VERSION = 1
"""Raise it when fetching makes other files of the same source."""

CONVERT_VERSION = 1
"""Raise it when conversion makes another checkpoint of the same file."""

EXPORT_VERSION = 2
"""Raise it when export or merging makes other files of the same checkpoint."""

EVALUATE_VERSION = 3
"""Raise it when evaluation makes another report of the same model."""

AGENT_VERSION = 1
"""Raise it when the agent's report states something else of the same model."""

_OPTIONAL_MEASUREMENTS = frozenset({"probes", "heldout_answers", "lm_eval"})
"""Settings of `evaluate` that are in its key only where they are used."""


def base_key(experiment: Experiment) -> dict[str, Any]:
    """What decides the base model's files."""
    return _values(experiment.base, Affects.BASE) | {"version": BASE_VERSION}


def base_id(experiment: Experiment) -> str:
    """The base model's folder name in store/models: readable, then a digest."""
    name = re.sub(r"[^a-z0-9.]+", "-", experiment.base_name.lower()).strip("-")
    return f"{name}-{digest(base_key(experiment))}"


def data_key(experiment: Experiment) -> dict[str, Any]:
    """What decides the processed data; `evaluate.heldout` does, as it sets rows aside."""
    config = experiment.config
    sources = [source.model_dump(mode="json", exclude_none=True) for source in experiment.sources]
    return {
        **_values(config, Affects.DATA, but={"data"}),
        **_values(config.evaluate, Affects.DATA),
        "sources": sources,
        "tokenizer": digest(base_key(experiment)),
        "version": DATA_VERSION,
    }


def data_id(experiment: Experiment) -> str:
    """The processed data's folder name in store/data."""
    return digest(data_key(experiment))


def train_key(experiment: Experiment) -> dict[str, Any]:
    """What decides the trained weights."""
    config, base = experiment.config, digest(base_key(experiment))
    # start_from names an experiment; what counts is that one's own key
    method = _changed(config.method, Affects.WEIGHTS, but={"start_from"})
    if experiment.convert_from:
        return {
            "base": base,
            "template": config.template,
            "method": method,
            "convert_from": experiment.convert_from,
            "version": CONVERT_VERSION,
        }
    stopping = [Affects.STOPPING] if config.train.early_stop else []
    key: dict[str, Any] = {
        "base": base,
        "data": data_id(experiment),
        "method": method,
        "train": _changed(config.train, Affects.WEIGHTS, *stopping),
        "version": TRAIN_VERSION,
    }
    if experiment.deepspeed_json is not None:
        key["deepspeed"] = experiment.deepspeed_json
    if experiment.start is not None:
        key["start"] = train_id(experiment.start)
    return key


def train_id(experiment: Experiment) -> str:
    """The id that binds checkpoints to the configuration they were trained with."""
    return digest(train_key(experiment))


def result_key(experiment: Experiment) -> dict[str, Any]:
    """What decides last.pth: the weights of training, and which of its checkpoints is the result.

    It is the training job's parameter. The second part is not in train_id: with another choice
    the job finds its finished run and only names another checkpoint last.pth.
    """
    choice = _changed(experiment.config.train, Affects.RESULT)
    # without a choice it is the key itself: jobs of before this part existed stay valid
    return train_key(experiment) | ({"result": {"train": choice}} if choice else {})


def export_key(experiment: Experiment) -> dict[str, Any]:
    """What decides the merged model, given the trained weights."""
    return _values(experiment.config.export, Affects.EXPORT) | {"version": EXPORT_VERSION}


def evaluate_key(experiment: Experiment) -> dict[str, Any]:
    """What decides the evaluation report, given the merged model."""
    evaluate = experiment.config.evaluate
    unused = {key for key in _OPTIONAL_MEASUREMENTS if not getattr(evaluate, key)}
    return {
        "evaluate": _values(evaluate, Affects.EVALUATION, but=unused),
        "prompts": experiment.prompts,
        "version": EVALUATE_VERSION,
    }


def agent_key(experiment: Experiment) -> dict[str, Any]:
    """What decides the agent's report, given the trained weights."""
    return {
        "agent": _values(experiment.config.agent, Affects.AGENT),
        "train": _values(experiment.config.train, Affects.AGENT),
        "version": AGENT_VERSION,
    }


def report_key(experiment: Experiment) -> dict[str, Any]:
    """What the data report says besides the data: how long training will be."""
    return _values(experiment.config.train, Affects.DATA_REPORT)


def _values(section: Strict, *marks: Affects, but: Iterable[str] = ()) -> dict[str, Any]:
    return section.model_dump(include={*marked(type(section), *marks)} - {*but})


def _changed(section: Strict, *marks: Affects, but: Iterable[str] = ()) -> dict[str, Any]:
    """The same, without values at their default."""
    include = {*marked(type(section), *marks)} - {*but}
    return section.model_dump(include=include, exclude_defaults=True)
