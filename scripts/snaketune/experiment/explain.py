"""Turn pydantic's errors into problems with file, line, key, what was found and how to fix it."""

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from snaketune.core.errors import nearest
from snaketune.experiment.document import Document, KeyPath, Problem
from snaketune.experiment.schema import XTUNER_NAMES, Configuration, Expansion, Train

_PLAINER = {
    "model_type": "a mapping (`key: value`)",
    "dict_type": "a mapping (`key: value`)",
    "list_type": "a list",
    "string_type": "a string (put it in quotes)",
    "too_short": "at least one item",
}
"""pydantic's kinds of error whose own words name Python's types."""

_FORMS = {
    "sha256": "64 digits and letters from a to f",
    "max_shard_size": "a number with KB, MB or GB, such as 2GB",
}
"""What keys with a pattern are to look like."""

_ELSEWHERE = {key: f"train.{key}" for key in Train.model_fields} | XTUNER_NAMES


Parsed = TypeVar("Parsed", bound=BaseModel)


def validated(
    model: type[Parsed],
    document: Document,
    problems: list[Problem],
    prefix: str = "",
    context: Mapping[str, Any] | None = None,
) -> Parsed | None:
    """Parse a document; its mistakes are added to `problems`, and nothing is returned."""
    try:
        return model.model_validate(document.values, context=context)
    except ValidationError as error:
        problems += explain(error, model, document, prefix)
        return None


def explain(
    error: ValidationError, model: type[BaseModel], document: Document, prefix: str = ""
) -> list[Problem]:
    """Return one problem for each wrong key.

    Args:
        error: What validating `document` as `model` raised.
        prefix: The key that `document` was selected by, put before the key path.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors():
        path = tuple(part for part in details["loc"] if not _is_union_branch(part))
        by_path.setdefault(path, []).append(details)
    problems = []
    for path, same in by_path.items():
        if any(other != path and other[: len(path)] == path for other in by_path):
            continue  # the branch of a union that the value was not meant for
        same = [one for one in same if one["type"] == "value_error"] or same
        message = " or ".join(dict.fromkeys(_message(details, path, model) for details in same))
        message = message.replace(" or expected ", " or ")
        if any(_found_matters(details) for details in same):
            message = f"found {_show(same[0]['input'])}, {message}"
        problems.append(Problem(document.place(path), message, dotted((prefix, *path))))
    return problems


def _is_union_branch(part: str | int) -> bool:
    """Tell pydantic's name for a branch of a union, such as `list[str]`, from a key."""
    return isinstance(part, str) and (part in {"str", "Model"} or "[" in part)


def _message(details: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
    kind, text = details["type"], details["msg"]
    if kind == "extra_forbidden":
        more = list(Expansion.model_fields) if model is Configuration and len(path) == 1 else []
        return _unknown_key(str(path[-1]), _fields_at(model, path[:-1]) + more)
    if kind == "missing":
        return "this required key is missing"
    if kind == "value_error":
        return text.removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        return f"expected {_FORMS[str(path[-1])]}"
    if kind in _PLAINER:
        return f"expected {_PLAINER[kind]}"
    hint = ""
    if kind == "literal_error" and isinstance(details["input"], str):
        hint = "." + nearest(details["input"], str(details["ctx"]["expected"]).split("'"))
    return text.replace("Input should be", "expected") + (hint if len(hint) > 1 else "")


def _found_matters(details: ErrorDetails) -> bool:
    return details["type"] not in {"extra_forbidden", "missing", "value_error"}


def _unknown_key(key: str, known: list[str]) -> str:
    hint = f" Use {_ELSEWHERE[key]}." if key in _ELSEWHERE else nearest(key, known)
    return f"unknown key.{hint} Known here: {', '.join(known)}"


def _fields_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys that the model nested at `path` has."""
    for part in path:
        if isinstance(part, int):
            continue
        nested = model_in(model.model_fields[str(part)].annotation)
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{text if len(text) < 60 else text[:57] + '...'} ({type(value).__name__})"


def dotted(path: KeyPath) -> str:
    """A key as messages name it: `data[0].vars.name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text and part else str(part)
    return text
