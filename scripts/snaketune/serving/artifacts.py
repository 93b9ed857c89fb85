"""Find the files of the models to serve. Imports no torch."""

import json
from dataclasses import dataclass
from pathlib import Path

from snaketune.core.errors import UserError, nearest
from snaketune.core.files import read_json
from snaketune.core.layout import (
    EXPERIMENTS,
    MODEL_RECORD,
    BasePaths,
    ExperimentPaths,
    RunPaths,
    base_paths,
)
from snaketune.core.run_identity import RunIdentity

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""Names of the context length in config.json: most models, GPT-2, MPT, and older ones."""


@dataclass(frozen=True)
class ServedModel:
    """A model of the endpoint.

    Attributes:
        name: Its id there: an experiment, `X/iter_N` of a kept checkpoint, or a base model's id.
        base: The id of the base it was trained on; its own id if it is a base.
        context_length: Tokens it can attend to, prompt and answer together.
        system: The system message it was trained with, "" for none.
        folder: With tokenizer.json and chat_template.jinja.
        checkpoint: The .pth with its weights, if no adapter was exported yet.
    """

    name: str
    base: str
    context_length: int
    system: str
    folder: Path
    checkpoint: Path | None = None

    @property
    def is_base(self) -> bool:
        """Whether nothing was trained."""
        return self.name == self.base

    @property
    def is_merged(self) -> bool:
        """Whether the folder holds a full model rather than an adapter."""
        return not self.is_base and (self.folder / "config.json").exists()


def find_models(names: list[str], root: Path = EXPERIMENTS) -> list[ServedModel]:
    """Find models and the bases they need, each once, bases last.

    Args:
        names: Experiments, `X/iter_N`, or base models' ids.
        root: The folder of the experiments.

    Raises:
        UserError: A model is not built.
    """
    bases = [name for name in names if _is_base(name)]
    trained = [_trained(name, root) for name in dict.fromkeys(names) if name not in bases]
    needed = dict.fromkeys([model.base for model in trained] + bases)
    return trained + [_base(name, trained) for name in needed]


def context_length(base: BasePaths) -> int:
    """How many tokens a base model can attend to.

    Raises:
        UserError: It is not fetched, or its config.json doesn't say.
    """
    if not base.config.exists():
        raise UserError(f"base model {base.folder} does not exist.\n  Fix: snakemake {base.folder}")
    config = read_json(base.config)
    if lengths := [config[key] for key in POSITIONS if isinstance(config.get(key), int)]:
        return lengths[0]
    raise UserError(
        f"{base.config} does not say how long the context is: expected one of the keys "
        f"{', '.join(POSITIONS)}."
    )


def belongs_to_run(model_record: Path, run: RunPaths) -> bool:
    """Whether an adapter was exported from the run whose checkpoints are in the folder now."""
    if not (model_record.exists() and run.identity.exists()):
        return False
    return read_json(model_record).get("train_id") == RunIdentity.read(run.identity).train_id


def _is_base(name: str) -> bool:
    return base_paths(name).provenance.exists()


def _base(name: str, trained: list[ServedModel]) -> ServedModel:
    """A base without a chat template borrows that of a model trained on it."""
    base = base_paths(name)
    folder = base.folder
    if not _is_base(name):
        raise UserError(f"base model {folder} does not exist.\n  Fix: snakemake {folder}")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    has_template = "chat_template" in config or (folder / "chat_template.jinja").exists()
    lender = next((model.folder for model in trained if model.base == name), folder)
    return ServedModel(name, name, context_length(base), "", folder if has_template else lender)


def _trained(name: str, root: Path) -> ServedModel:
    paths = ExperimentPaths(name, root)
    for folder in (paths.adapter(), paths.merged()):
        if (folder / MODEL_RECORD).exists():
            return _served(name, folder, None)
    experiment, _, iteration = name.partition("/")
    end = ExperimentPaths(experiment, root)
    # a checkpoint without its own adapter takes tokenizer and template of the final one
    checkpoint = end.run.folder / f"{iteration}.pth"
    if iteration and checkpoint.exists() and belongs_to_run(end.adapter() / MODEL_RECORD, end.run):
        return _served(name, end.adapter(), checkpoint)
    built = [
        record.parent.parent.name
        for kind in (ExperimentPaths("*").adapter(), ExperimentPaths("*").merged())
        for record in root.glob(str(kind.relative_to(EXPERIMENTS) / MODEL_RECORD))
    ]
    raise UserError(
        f"{paths.folder} has neither an adapter nor a merged model.{nearest(experiment, built)}\n"
        f"  Fix: snakemake {paths.adapter()}   (or {paths.merged()} for a full fine-tune)"
    )


def _served(name: str, folder: Path, checkpoint: Path | None) -> ServedModel:
    record = read_json(folder / MODEL_RECORD)
    try:
        base, system = record["base_id"], record["template"].get("system", "")
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / MODEL_RECORD} is damaged: expected the keys base_id and template.\n"
            f"  Fix: delete {folder} and build it again: snakemake {folder}"
        ) from error
    return ServedModel(name, base, context_length(base_paths(base)), system, folder, checkpoint)
