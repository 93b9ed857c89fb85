"""From a study's file to one document per experiment: inheritance, variants, matrix."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snaketune.core.errors import nearest
from snaketune.experiment.document import (
    Document,
    DocumentError,
    KeyPath,
    Place,
    Problem,
    merge,
    read_document,
)
from snaketune.experiment.explain import validated
from snaketune.experiment.schema import Expansion


def read_inherited(file: Path) -> Document:
    """Read a study with everything that it extends, its own keys on top.

    Raises:
        DocumentError: A file of the chain is missing or not YAML, or the chain is a cycle.
    """
    return _inherit(read_document(file), file.parent, (file,))


def _inherit(document: Document, root: Path, chain: tuple[Path, ...]) -> Document:
    if "extends" not in document.values:
        return document
    name, place = document.values.pop("extends"), document.place(("extends",))
    parent = root / f"{name}.yaml"
    if not parent.is_file():
        known = [path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml")]
        hint = nearest(str(name), known) or " Name a file beside this one, such as defaults/lora"
        message = f"{parent} does not exist.{hint}"
        raise DocumentError(Problem(place, message, "extends"))
    if parent in chain:
        cycle = " -> ".join(path.stem for path in (*chain, parent))
        raise DocumentError(Problem(place, f"a cycle: {cycle}. Remove one of them", "extends"))
    return merge(_inherit(read_document(parent), root, (*chain, parent)), document)


def expand(document: Document, problems: list[Problem]) -> Iterator[tuple[str | None, Document]]:
    """Yield (variant name, its document); a study without variants is a single experiment."""
    study = validated(Expansion, document, problems)
    if study is None:
        return
    own = {
        key: document.values[key] for key in document.values if key not in Expansion.model_fields
    }
    common = Document(document.file, own, document.places)
    if mistake := _matrix_mistake(study):
        problems.append(Problem(document.place(("matrix",)), mistake, "matrix"))
    elif study.variants:
        for name, changes in study.variants.items():
            yield name, merge(common, _variant(document, ("variants", name), changes or {}))
    elif study.matrix:
        places: dict[KeyPath, Place] = {
            tuple(key.split(".")): document.place(("matrix", key)) for key in study.matrix
        }
        for name, changes in _combinations(study.matrix):
            yield name, merge(common, Document(document.file, changes, dict(places)))
    else:
        yield None, common


def _matrix_mistake(study: Expansion) -> str:
    keys = study.matrix or {}
    if study.variants and keys:
        return "use either `variants` or `matrix`, not both"
    for outer, inner in itertools.permutations(keys, 2):
        if inner.startswith(f"{outer}."):
            return f"'{outer}' overlaps '{inner}'. Remove one of them"
    return ""


def _variant(document: Document, at: tuple[str, str], changes: Mapping[str, Any]) -> Document:
    places = {path[2:]: place for path, place in document.places.items() if path[:2] == at}
    return Document(document.file, dict(changes), places)


def _combinations(matrix: Mapping[str, list[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name such as `deepspeed-zero2_lr-0.0001` and the nested keys of each combination."""
    for values in itertools.product(*matrix.values()):
        changes: dict[str, Any] = {}
        for dotted, value in zip(matrix, values, strict=True):
            *parents, last = dotted.split(".")
            level = changes
            for parent in parents:
                level = level.setdefault(parent, {})
            level[last] = value
        pairs = zip(matrix, values, strict=True)
        yield "_".join(f"{dotted.rsplit('.', 1)[-1]}-{value}" for dotted, value in pairs), changes
