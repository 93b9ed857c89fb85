"""Local files that an experiment names and that do not exist (yet)."""

from collections.abc import Iterator
from pathlib import Path

from snaketune.core.data_paths import data_files
from snaketune.core.errors import nearest
from snaketune.experiment.catalog import Catalog
from snaketune.experiment.document import Document, KeyPath, Problem
from snaketune.experiment.experiment import Source, is_task_file
from snaketune.experiment.explain import dotted
from snaketune.experiment.schema import Configuration, Model


def find_missing(
    config: Configuration,
    base: Model,
    sources: list[Source],
    catalog: Catalog,
    document: Document,
) -> Iterator[Problem]:
    """Yield a problem for each, at the line that names it."""
    yield from _missing_data(config, sources, catalog, document)
    for key, path in _named_files(config, base, catalog):
        if not Path(path).exists():
            yield Problem(document.place(key), does_not_exist(path), dotted(key))


def _missing_data(
    config: Configuration, sources: list[Source], catalog: Catalog, document: Document
) -> Iterator[Problem]:
    for index, (named, source) in enumerate(zip(config.data, sources, strict=True)):
        if source.hub or any(map(Path.exists, data_files(Path(source.path)))):
            continue
        entry = catalog.datasets[named.dataset] if named.dataset else None
        place, key = document.place(("data", index)), f"data[{index}]"
        if entry and entry.homepage:
            message = (
                f"{source.path} is not here yet. Download it from {entry.homepage} and put it there"
            )
            yield Problem(place, message, key, to_download=True)
        else:
            yield Problem(place, does_not_exist(source.path), key)


def _named_files(
    config: Configuration, base: Model, catalog: Catalog
) -> Iterator[tuple[KeyPath, str]]:
    """Yield the key and the path of each local file besides the data."""
    if ":" not in base.source:
        yield ("model",), base.source
    for index, task in enumerate(config.evaluate.lm_eval):
        if is_task_file(task):
            yield ("evaluate", "lm_eval", index), catalog.local(task)
    for key in ("questions", "canned"):
        if name := getattr(config.agent, key):
            yield ("agent", key), catalog.local(name)
    if config.convert_from:
        yield ("convert_from",), catalog.local(config.convert_from)


def does_not_exist(path: str) -> str:
    """The message for a path without a file, with the nearest name beside it."""
    if Path(path).is_dir():
        return f"{path} has no data files (hidden files and READMEs do not count). Put rows there"
    siblings = (sibling.name for sibling in Path(path).parent.glob("*") if sibling.suffix)
    hint = nearest(Path(path).name, siblings)
    return f"{path} does not exist; paths are relative to experiments/.{hint}"
