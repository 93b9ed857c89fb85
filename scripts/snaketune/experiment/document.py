"""A YAML file with the line of every key, so that an error can point at it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """A line of a file, 1-based."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One mistake in an experiment file or a catalog.

    `to_download` marks what is no mistake: a file that everyone must first get from elsewhere.
    """

    place: Place
    message: str
    key: str = ""
    to_download: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {f'{self.key}: ' if self.key else ''}{self.message}"


class DocumentError(Exception):
    """A file that cannot be read at all; `problem` says why and where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass
class Document:
    """Plain values and, for each key path in them, where it was written."""

    file: Path
    values: dict[str, Any]
    places: dict[KeyPath, Place] = field(default_factory=dict)

    def place(self, path: KeyPath) -> Place:
        """Return where `path` was written, or the nearest written key above it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(self.file, 1))

    def select(self, key: str) -> "Document":
        """Return the mapping under one key as a document of its own."""
        places = {path[1:]: place for path, place in self.places.items() if path[:1] == (key,)}
        return Document(self.file, self.values[key] or {}, places)


def read_document(file: Path, list_as: str | None = None) -> Document:
    """Read a YAML 1.2 mapping (so `1e-4` is a number and `no` a word).

    Args:
        list_as: The key that a list is read as the value of, where a file may be one.

    Raises:
        DocumentError: Unreadable, not UTF-8, not YAML, a key given twice, or not a mapping.
    """
    root = _root(file)
    places: dict[KeyPath, Place] = {}
    if list_as and isinstance(root, CommentedSeq):
        return Document(file, {list_as: _plain(root, file, (list_as,), places)}, places)
    if not isinstance(root, CommentedMap):
        kinds = {CommentedSeq: "a list", type(None): "nothing"}
        found = kinds.get(type(root), f"the value {root!r}")
        keys = f"`{list_as}:`" if list_as else "`model:` and `data:`"
        wanted = f"{'a list, or ' if list_as else ''}keys such as {keys}"
        raise _unreadable(file, 1, f"expected {wanted}, found {found}")
    return Document(file, _plain(root, file, (), places), places)


def _root(file: Path) -> Any:
    try:
        return YAML(typ="rt").load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(file, 1, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        found = f"byte {error.object[error.start]:#04x}"
        raise _unreadable(file, line, f"{found} is not UTF-8 text. Save it as UTF-8") from error
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        raise _unreadable(file, line, f"{error.problem}. Remove one of them") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = " ".join(filter(None, [error.context, error.problem]))
        raise _unreadable(file, line, f"not valid YAML: {problem}") from error
    except YAMLError as error:
        raise _unreadable(file, 1, f"not valid YAML: {error}") from error


def merge(parent: Document, child: Document) -> Document:
    """Lay `child` over `parent`: mappings merge key by key, anything else is replaced."""
    merged = Document(child.file, {}, dict(parent.places))
    merged.values = _merge_values(parent.values, child.values, (), merged.places)
    merged.places.update(child.places)
    return merged


def _merge_values(
    parent: dict[str, Any], child: dict[str, Any], path: KeyPath, places: dict[KeyPath, Place]
) -> dict[str, Any]:
    result = dict(parent)
    for key, value in child.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merge_values(result[key], value, here, places)
            continue
        for replaced in [old for old in places if old[: len(here)] == here]:
            del places[replaced]
        result[key] = value
    return result


def _plain(node: Any, file: Path, path: KeyPath, places: dict[KeyPath, Place]) -> Any:
    """Copy ruamel's containers to dict and list, noting the line of each key and item."""
    if isinstance(node, CommentedMap):
        for key in node:
            line = node.lc.key(key)[0] + 1 if key in (node.lc.data or {}) else 1
            places[(*path, str(key))] = Place(file, line)
        return {str(key): _plain(node[key], file, (*path, str(key)), places) for key in node}
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            places[(*path, index)] = Place(file, node.lc.item(index)[0] + 1)
        return [_plain(item, file, (*path, index), places) for index, item in enumerate(node)]
    for scalar in (bool, int, float, str):
        if isinstance(node, scalar):
            return scalar(node)
    return node


def _unreadable(file: Path, line: int, message: str) -> DocumentError:
    return DocumentError(Problem(Place(file, line), message))
