"""resolved.yaml: an experiment with every default, its ids, and the versions it was resolved by."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from snaketune.core.errors import UserError, nearest
from snaketune.experiment.experiment import Experiment
from snaketune.experiment.identity import base_id, data_id, train_id
from snaketune.experiment.schema import Configuration
from snaketune.experiment.studies import load_studies

PACKAGES = ("snaketune", "snakemake", "torch", "transformers", "peft", "bitsandbytes", "deepspeed")


@dataclass(frozen=True)
class Resolved:
    """What the stages of one experiment read; `values` is resolved.yaml's whole content."""

    values: dict[str, Any]
    config: Configuration
    name: str
    study: str
    variant: str | None
    base_id: str
    data_id: str
    train_id: str
    prompts: list[str]
    deepspeed_json: dict[str, Any] | None
    persona: str | None
    lm_eval: list[str]


def find_experiment(name: str) -> Experiment:
    """Return an experiment of the folder experiments/ by name.

    Raises:
        UserError: There is none; names the nearest, and the mistakes in its file.
    """
    studies = load_studies(Path("experiments"))
    if name not in studies.experiments:
        problems = "".join(f"\n  {problem}" for problem in studies.problems_of(name))
        hint = nearest(name, studies.experiments)
        raise UserError(f"there is no experiment '{name}' in experiments/.{hint}{problems}")
    return studies.experiments[name]


def load_resolved(name: str) -> Resolved:
    """Return an experiment by name, or as a resolved.yaml tells it.

    Raises:
        UserError: There is no such experiment, or the file is not a resolved experiment.
    """
    if name.endswith(".yaml"):
        return read_resolved(Path(name))
    values = resolved_values(find_experiment(name))
    return _from_values(values)


def resolved_values(experiment: Experiment) -> dict[str, Any]:
    """Return the content of resolved.yaml as plain values."""
    return {
        "name": experiment.name,
        "study": experiment.study,
        "variant": experiment.variant,
        "base_id": base_id(experiment),
        "data_id": data_id(experiment),
        "train_id": train_id(experiment),
        "base": experiment.base.model_dump(),
        "sources": [source.model_dump(mode="json") for source in experiment.sources],
        "prompts": experiment.prompts,
        "persona": experiment.persona,
        "lm_eval": experiment.lm_eval,
        "deepspeed_json": experiment.deepspeed_json,
        "config": experiment.config.model_dump(mode="json"),
        "versions": package_versions(),
    }


def to_yaml(values: dict[str, Any]) -> str:
    """Return values as YAML text, in the order given."""
    text = StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(values, text)
    return text.getvalue()


def read_resolved(path: Path) -> Resolved:
    """Read a resolved.yaml that SnakeTune has written.

    Raises:
        UserError: It is missing, or was edited by hand into something invalid.
    """
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        return _from_values(values)
    except FileNotFoundError:
        raise UserError(f"{path} is missing.\n  Fix: build it with: snakemake {path}") from None
    except (KeyError, TypeError, ValueError, YAMLError) as error:
        raise UserError(
            f"{path} is not a resolved experiment: {error}.\n"
            "  Fix: delete it and run snakemake again."
        ) from error


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _from_values(values: dict[str, Any]) -> Resolved:
    plain = ("name", "study", "variant", "base_id", "data_id", "train_id", "prompts")
    config = Configuration.model_validate(values["config"])
    optional = ("deepspeed_json", "persona")
    given = {key: values[key] for key in plain} | {key: values.get(key) for key in optional}
    return Resolved(values, config, **given, lm_eval=values.get("lm_eval", []))
