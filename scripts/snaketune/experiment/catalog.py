"""experiments/catalog: models and data sets by name, and experiments' data sources filled in."""

import re
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from snaketune.core.data_paths import data_files
from snaketune.experiment.document import Problem, read_document
from snaketune.experiment.experiment import HubFile, Source
from snaketune.experiment.explain import validated
from snaketune.experiment.probe_files import known_probes
from snaketune.experiment.schema import Dataset, DataSource, Model, Rows, require_pin

Entry = TypeVar("Entry", bound=BaseModel)

_WILDCARD = re.compile(r"\{.*\}")


class Catalog:
    """The named models and data sets, and the names of the probes.

    Args:
        root: The folder that holds `catalog/` and `probes/`; paths in files are relative to it.

    Raises:
        DocumentError: A catalog is not YAML.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self.models = self._read("models.yaml", Model)
        self.datasets = self._read("datasets.yaml", Dataset)
        self.probes = known_probes(root / "probes")

    def _read(self, name: str, entry_type: type[Entry]) -> dict[str, Entry]:
        file = self.root / "catalog" / name
        if not file.exists():
            return {}
        document, entries = read_document(file), {}
        for key in document.values:
            entry = validated(entry_type, document.select(key), self.problems, prefix=key)
            if entry is not None:
                entries[key] = entry
        return entries

    def model(self, named: str | Model) -> tuple[str, Model]:
        """A base model's short name, and where its files are from."""
        if isinstance(named, Model):
            name, model = named.source.rstrip("/").rsplit("/", 1)[-1], named
        else:
            name, model = named, self.models[named]
        if ":" in model.source:
            return name, model
        return name, model.model_copy(update={"source": self.local(model.source)})

    def source(self, named: DataSource) -> Source:
        """Fill a data source's open keys from the catalog entry it names.

        Raises:
            ValueError: The format is missing, a hub source lacks its revision or file, or a local
                path has braces, which Snakemake would read as a wildcard.
        """
        entry = self.datasets[named.dataset] if named.dataset else Dataset.model_construct()
        own = {
            key: getattr(named, key) for key in named.model_fields_set & Rows.model_fields.keys()
        }
        rows = Rows.model_construct(**{key: getattr(entry, key) for key in Rows.model_fields} | own)
        if bool(rows.format) == bool(rows.map):
            raise ValueError(
                "expected either a `format:` (the layout of a row; `auto` recognises it) or a "
                f"`map:` of columns, found {'both' if rows.map else 'neither'}"
            )
        hub = _hub_file(rows)
        path = f"{hub.folder}/{hub.file}" if hub else self.local(rows.path or "")
        if not hub:
            _refuse_braces(path)
        return Source(
            label=named.dataset or Path(rows.path or rows.file or "").stem,
            path=path,
            format=rows.format or "auto",
            map=rows.map,
            filter=rows.filter,
            group=rows.group,
            system=rows.system,
            vars=entry.vars | named.vars,
            weight=named.weight,
            max_rows=named.max_rows,
            hub=hub,
        )

    def local(self, path: str) -> str:
        """The path of a file that an experiment names; those are relative to experiments/."""
        return (self.root / Path(path).expanduser()).as_posix()


def _hub_file(rows: Rows) -> HubFile | None:
    if not rows.source:
        return None
    if missing := [key for key in ("revision", "file") if not getattr(rows, key)]:
        raise ValueError(f"'{rows.source}' also needs {' and '.join(missing)}")
    if not rows.source.startswith(("hf:", "modelscope:")):
        raise ValueError(
            f"source: expected hf:ORG/NAME or modelscope:ORG/NAME, found '{rows.source}'. "
            "For a local file use `path:`"
        )
    require_pin(rows.source, rows.revision)
    return HubFile.model_validate({key: getattr(rows, key) for key in HubFile.model_fields})


def _refuse_braces(path: str) -> None:
    for file in map(str, data_files(Path(path))):
        if wildcard := _WILDCARD.search(file):
            raise ValueError(
                f"path: {file}: Snakemake reads {wildcard[0]} as a wildcard. Rename the file or "
                "folder, without braces"
            )
