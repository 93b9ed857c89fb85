"""Read the fields of a row, or say which key is missing and which type was expected."""

import json
from datetime import date
from typing import Any

from snaketune.data.conversation import RowError, require_text


def string(row: Any, key: str) -> str:
    """Return `row[key]`, a string that may be empty."""
    return field(row, key, str)


def optional_string(row: Any, key: str) -> str:
    """Return a string that may be missing, null or empty; "" for all three."""
    value = require_object(row, key).get(key)
    if value is not None and not isinstance(value, str):
        raise RowError(f"'{key}': expected a string, found {type(value).__name__}")
    return value or ""


def items(row: Any, key: str) -> list[Any]:
    """Return `row[key]`, a list."""
    return field(row, key, list)


def day(row: Any, key: str) -> date:
    """Return `row[key]` as a date."""
    try:
        return date.fromisoformat(string(row, key))
    except ValueError as error:
        message = f"'{key}': expected a date such as 2020-01-31, found {row[key]!r}"
        raise RowError(message) from error


def field(row: Any, key: str, kind: Any) -> Any:
    """Return `row[key]`, which must be of a type: str, list, dict or object (any)."""
    if key not in require_object(row, key):
        raise RowError(f"'{key}' is missing; {row_keys(row)}")
    if not isinstance(row[key], kind):
        name = {str: "a string", list: "a list", dict: "an object"}[kind]
        raise RowError(f"'{key}': expected {name}, found {type(row[key]).__name__}")
    return row[key]


def require_object(row: Any, key: str) -> dict[str, Any]:
    """Return the row, which must be a JSON object; `key` is for the message."""
    if not isinstance(row, dict):
        raise RowError(f"expected an object with '{key}', found {type(row).__name__}")
    return row


def json_or_value(value: Any, key: str) -> Any:
    """Return a value that may be written as JSON text; None for blank text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError) as error:  # brackets nested thousands deep
        raise RowError(f"'{key}': not valid JSON: {error}") from error


def group_of(row: Any, key: str) -> str:
    """Return a row's value in the column that `group:` names, as text."""
    if not isinstance(row, dict) or row.get(key) is None:
        raise RowError(
            f"'{key}' is missing or null; {row_keys(row)}",
            f"name another column than `group: {key}`, or fill it in every row",
        )
    return require_text(str(row[key]))


def row_keys(row: Any) -> str:
    """Describe a row for a message: its keys, or its type."""
    if not isinstance(row, dict):
        return f"found {type(row).__name__}"
    return f"the row has: {', '.join(map(str, row)) or 'no keys'}"
