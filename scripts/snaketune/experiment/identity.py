"""What reruns when: a stage's id is the digest of exactly the keys that change its result.

A comment, a description, the order of keys, sample prompts, evaluation prompts, logging and the
checkpoint interval are in none of the ids, so editing them retrains nothing.
"""

import re
from typing import Any

from snaketune.core.digests import digest
from snaketune.experiment.experiment import Experiment

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
"""Raise it when the agent's report tells something else of the same model."""

NO_EFFECT_ON_WEIGHTS = {"gradient_checkpointing", "save_every", "keep", "log_every"}
"""Keys of `train` that change no weights."""


def base_key(experiment: Experiment) -> dict[str, Any]:
    """Return what decides the base model's files."""
    origin = experiment.base.model_dump(include={"source", "revision", "sha256"})
    return origin | {"version": BASE_VERSION}


def base_id(experiment: Experiment) -> str:
    """Return the base model's folder name in store/models: readable, then a digest."""
    name = re.sub(r"[^a-z0-9.]+", "-", experiment.base_name.lower()).strip("-")
    return f"{name}-{digest(base_key(experiment))}"


def data_key(experiment: Experiment) -> dict[str, Any]:
    """Return what decides the processed data; `evaluate.heldout` does, as it sets rows aside."""
    config = experiment.config
    return {
        "sources": [
            source.model_dump(mode="json", exclude_none=True) for source in experiment.sources
        ],
        "template": config.template,
        "loss_on": config.loss_on,
        "max_length": config.max_length,
        "truncation": config.truncation,
        "deduplicate": config.deduplicate,
        "pack": config.pack,
        "heldout": config.evaluate.heldout,
        "tokenizer": digest(base_key(experiment)),
        "version": DATA_VERSION,
    }


def data_id(experiment: Experiment) -> str:
    """Return the processed data's folder name in store/data."""
    return digest(data_key(experiment))


def train_key(experiment: Experiment) -> dict[str, Any]:
    """Return what decides the trained weights."""
    config = experiment.config
    method = config.method.model_dump(exclude={"start_from"}, exclude_defaults=True)
    if experiment.convert_from:
        return {
            "base": digest(base_key(experiment)),
            "template": config.template,
            "method": method,
            "convert_from": experiment.convert_from,
            "version": CONVERT_VERSION,
        }
    # without defaults: a key that is new and not used retrains nothing
    train = config.train.model_dump(exclude=NO_EFFECT_ON_WEIGHTS, exclude_defaults=True)
    key: dict[str, Any] = {
        "base": digest(base_key(experiment)),
        "data": data_id(experiment),
        "method": method,
        "train": train,
        "version": TRAIN_VERSION,
    }
    if experiment.deepspeed_json is not None:
        key["deepspeed"] = experiment.deepspeed_json
    if experiment.start is not None:
        key["start"] = train_id(experiment.start)
    return key


def train_id(experiment: Experiment) -> str:
    """Return the id that binds checkpoints to the configuration they were trained with."""
    return digest(train_key(experiment))


def export_key(experiment: Experiment) -> dict[str, Any]:
    """Return what decides the merged model, given the trained weights."""
    return experiment.config.export.model_dump(exclude={"gguf"}) | {"version": EXPORT_VERSION}


def evaluate_key(experiment: Experiment) -> dict[str, Any]:
    """Return what decides the evaluation report, given the merged model."""
    evaluate = experiment.config.evaluate
    unused = {key for key in ("probes", "heldout_answers", "lm_eval") if not getattr(evaluate, key)}
    return {
        "evaluate": evaluate.model_dump(exclude=unused),
        "prompts": experiment.prompts,
        "version": EVALUATE_VERSION,
    }


def agent_key(experiment: Experiment) -> dict[str, Any]:
    """Return what decides the agent's report, given the trained weights."""
    return {
        "agent": experiment.config.agent.model_dump(),
        "train": {"precision": experiment.config.train.precision},
        "version": AGENT_VERSION,
    }


def report_key(experiment: Experiment) -> dict[str, Any]:
    """Return what the data report tells besides the data: how long training will be."""
    return experiment.config.train.model_dump(
        include={"epochs", "max_steps", "batch_size", "accumulate", "save_every"}
    )
