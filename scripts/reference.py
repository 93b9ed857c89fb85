"""Write what follows from something else: schema.json, docs/reference.md and envs/*.yaml.

python scripts/reference.py

The schema (for editors) and the reference (for people) come from the typed model in
snaketune/experiment/schema.py, the conda environments from pyproject.toml. A test fails when a
file differs from what this writes.
"""

import json
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from snaketune.core import cli
from snaketune.core.files import write_text
from snaketune.data.formats import FORMATS
from snaketune.data.names import FORMAT_NAMES
from snaketune.experiment.schema import Dataset, DataSource, Model, Study

ENVIRONMENTS = {
    "cpu": "a machine without a GPU",
    "cuda": "a machine with CUDA",
    "agent": "the agent demo",
}
"""An environment file's name, which is also its extra's in pyproject.toml, and what it is for."""


def main(argv: Sequence[str] | None = None) -> None:
    """Write all files, below the current folder."""
    cli.open_log(cli.parser(__doc__).parse_args(argv).log)
    for path, text in generated().items():
        write_text(Path(path), text)


def generated() -> dict[str, str]:
    """Return each file's path and text."""
    files = {"experiments/schema.json": schema(), "docs/reference.md": reference()}
    return files | {f"envs/{name}.yaml": environment(name) for name in ENVIRONMENTS}


def environment(name: str) -> str:
    """Return a conda environment with the packages of pyproject.toml, pinned as there."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = project["dependencies"] + project["optional-dependencies"].get(name, [])
    listed = "\n".join(f'      - "{package}"' for package in packages)
    return (
        f"# For `snakemake --sdm conda`: {ENVIRONMENTS[name]}.\n"
        "# Written by `python scripts/reference.py` from pyproject.toml.\n"
        "channels: [conda-forge, nodefaults]\n"
        f"dependencies:\n  - python=3.11\n  - gxx\n  - pip\n  - pip:\n{listed}\n"
    )


def schema() -> str:
    """Return the JSON schema of a study; keys that `extends` may bring are not required."""
    found = Study.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found.pop("required")
    return json.dumps(found, indent=2) + "\n"


def reference() -> str:
    """Return the reference page: a table for each section of an experiment file."""
    parts = [
        "# Every key of an experiment file\n",
        "Written by `python scripts/reference.py` from `snaketune/experiment/schema.py`.\n",
    ]
    for title, model in sections():
        parts += [f"\n## {title}\n", f"{(model.__doc__ or '').strip()}\n", _table(model)]
    parts += ["\n## Data formats\n", "| `format` | a row |", "|---|---|"]
    parts += [f"| `{name}` | {FORMATS[name].description} |" for name in FORMAT_NAMES]
    return "\n".join(parts) + "\n"


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield a heading and the model it describes."""
    yield "An experiment", Study
    for name, field in Study.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield f"`{name}:`", nested
    yield "An item of `data:`", DataSource
    yield "An entry of catalog/models.yaml, or `model:` written out", Model
    yield "An entry of catalog/datasets.yaml", Dataset


def _table(model: type[BaseModel]) -> str:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        rows.append(f"| `{name}` | {_default(field)} | {_meaning(field)} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "see below"
    return f"`{json.dumps(value)}`" if value not in (None, "") else "–"


def _meaning(field: FieldInfo) -> str:
    text = (field.description or "see below").replace("|", "\\|")
    choices = get_args(field.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        text += f" ({', '.join(f'`{choice}`' for choice in choices)})"
    return text


if __name__ == "__main__":
    sys.exit(cli.run(main))
