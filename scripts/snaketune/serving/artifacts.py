"""Which models can be served, and where their files are. Imports no torch."""

import json
from dataclasses import dataclass
from pathlib import Path

from snaketune.core.errors import UserError, nearest
from snaketune.core.files import read_json

STORE = Path("store/models")
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""What config.json calls the length of the context: most, GPT-2, MPT, and older ones."""


@dataclass(frozen=True)
class ServedModel:
    """A model of the endpoint.

    Attributes:
        name: Its id there: an experiment, `X/iter_N` of a kept checkpoint, or a base model's id.
        base: The id of the base it was trained on; of a base its own.
        context_length: How many tokens it can attend to, prompt and answer together.
        system: The system message it was trained with, "" for none.
        folder: With tokenizer.json and chat_template.jinja.
        checkpoint: The .pth whose weights it has, where no adapter was exported yet.
    """

    name: str
    base: str
    context_length: int
    system: str
    folder: Path
    checkpoint: Path | None = None

    @property
    def is_base(self) -> bool:
        """Tell whether nothing was trained."""
        return self.name == self.base

    @property
    def is_merged(self) -> bool:
        """Tell whether the folder holds whole weights of a training, not an adapter."""
        return not self.is_base and (self.folder / "config.json").exists()


def find_models(names: list[str], root: Path = Path("experiments")) -> list[ServedModel]:
    """Return these models and the bases that they need, each once, bases last.

    Args:
        names: Experiments, `X/iter_N`, or a base model's id.
        root: The folder of the experiments.

    Raises:
        UserError: A model is not built; it says what builds it.
    """
    asked = [name for name in names if _is_base(name)]
    trained = [_trained(name, root) for name in dict.fromkeys(names) if name not in asked]
    bases = dict.fromkeys([each.base for each in trained] + asked)
    return trained + [_base(base, trained) for base in bases]


def _is_base(name: str) -> bool:
    return (STORE / name / "provenance.json").exists()


def _base(name: str, trained: list[ServedModel]) -> ServedModel:
    """Return a base model; one without a chat template speaks by that of a model trained on it."""
    folder = STORE / name
    if not _is_base(name):
        raise UserError(f"there is no base model {folder}.\n  Fix: snakemake {folder}")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    speaks = "chat_template" in config or (folder / "chat_template.jinja").exists()
    taught = next((each.folder for each in trained if each.base == name), folder)
    return ServedModel(name, name, context_length(folder), "", folder if speaks else taught)


def _trained(name: str, root: Path) -> ServedModel:
    adapter, merged = root / name / "adapter", root / name / "merged"
    for folder in (adapter, merged):
        if (folder / "snaketune.json").exists():
            return _served(name, folder, None)
    experiment, _, iteration = name.partition("/")
    checkpoint = root / experiment / "checkpoints" / f"{iteration}.pth"
    end = root / experiment / "adapter"
    if iteration and checkpoint.exists() and _is_end_of(checkpoint.parent, end):
        return _served(name, end, checkpoint)
    built = [each.parent.name for kind in ("adapter", "merged") for each in root.glob(f"*/{kind}")]
    raise UserError(
        f"{root / name} has neither an adapter nor a merged model.{nearest(experiment, built)}\n"
        f"  Fix: snakemake {adapter}   (or {merged} for a full fine-tune)"
    )


def _is_end_of(checkpoints: Path, adapter: Path) -> bool:
    """Tell whether an adapter is there and of the same training as the checkpoints."""
    files = adapter / "snaketune.json", checkpoints / "run.json"
    if not all(file.exists() for file in files):
        return False
    adapter_of, checkpoints_of = (read_json(file).get("train_id") for file in files)
    return adapter_of == checkpoints_of


def _served(name: str, folder: Path, checkpoint: Path | None) -> ServedModel:
    about = read_json(folder / "snaketune.json")
    try:
        base, system = about["base_id"], about["template"].get("system", "")
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'snaketune.json'} does not tell base_id and template.\n"
            f"  Fix: delete {folder} and build it again: snakemake {folder}"
        ) from error
    return ServedModel(name, base, context_length(STORE / base), system, folder, checkpoint)


def context_length(base: Path) -> int:
    """Return how many tokens a base model can attend to.

    Raises:
        UserError: It is not there, or its config.json does not tell.
    """
    file = base / "config.json"
    if not file.exists():
        raise UserError(f"base model {base} is not there.\n  Fix: snakemake {base}")
    config = read_json(file)
    if known := [config[key] for key in POSITIONS if isinstance(config.get(key), int)]:
        return known[0]
    raise UserError(f"{file}: none of {', '.join(POSITIONS)} tells how long its context is.")
