"""The model card: README.md of an adapter or a merged model, as model hubs show it."""

import re
from pathlib import Path
from typing import Literal

import jinja2
from huggingface_hub import ModelCardData

from snaketune.core.files import read_json, write_text
from snaketune.core.layout import BasePaths
from snaketune.core.pages import minutes
from snaketune.experiment.resolved import Resolved
from snaketune.export.model_record import ModelRecord

Kind = Literal["adapter", "merged"]

_LICENCES = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "unlicense"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
    *("openrail", "bigscience-openrail-m", "bigscience-bloom-rail-1.0"),
    *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "gemma"),
    *("unknown", "other"),
}
"""Those a model may have of the identifiers in huggingface.co/docs/hub/repositories-licenses: the
hub refuses a card with any other, which is told as `other` with a name."""


def write_card(
    folder: Path, kind: Kind, record: ModelRecord, experiment: Resolved, base: Path
) -> None:
    """Write README.md.

    Args:
        folder: The adapter's or merged model's.
        base: The base model's folder.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("snaketune", "export"),
        autoescape=False,  # Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["minutes"] = minutes
    config = experiment.config
    provenance = read_json(BasePaths(base).provenance)
    own_folder = ":" not in provenance["source"]
    text = environment.get_template("card.md.jinja").render(
        kind=kind,
        front=_front(kind, record, experiment).to_yaml(),
        about=record,
        config=config,
        method=config.method,
        train=config.train,
        licence=experiment.values["base"]["license"],
        sources=experiment.values["sources"],
        base=provenance,
        source=Path(provenance["source"]).name if own_folder else provenance["source"],
    )
    write_text(folder / "README.md", text)


def _front(kind: Kind, record: ModelRecord, experiment: Resolved) -> ModelCardData:
    """Return what hubs sort models by."""
    base = experiment.values["base"]
    licence, name = _licence(base["license"])
    is_on_hub = base["source"].startswith("hf:")
    return ModelCardData(
        model_name=record.name,
        base_model=base["source"].removeprefix("hf:") if is_on_hub else None,
        base_model_relation=("adapter" if kind == "adapter" else "finetune") if is_on_hub else None,
        license=licence,
        license_name=name,
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["snaketune", record.method.name],
    )


def _licence(text: str) -> tuple[str | None, str | None]:
    """Return a licence as the hub takes it: its identifier, and the name of an `other` one."""
    name = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
    if not name or name in _LICENCES:
        return name or None, None
    return "other", name
