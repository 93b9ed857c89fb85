"""Read the fields of a row, or say which key is missing and which type was expected."""

import json
from datetime import date
from typing import Any

from snaketune.data.conversation import RowError, require_text


def string(row: Any, key: str) -> str:
    return field(row, key, str)


def optional_string(row: Any, key: str) -> str:
    value = require_object(row, key).get(key)
    if value is not None and not isinstance(value, str):
        raise RowError(f"'{key}': expected a string, found {type(value).__name__}")
    return value or ""


def items(row: Any, key: str) -> list[Any]:
    return field(row, key, list)


def day(row: Any, key: str) -> date:
    try:
        return date.fromisoformat(string(row, key))
    except ValueError as error:
        message = f"'{key}': expected a date such as 2020-01-31, found {row[key]!r}"
        raise RowError(message) from error


def field(row: Any, key: str, kind: Any) -> Any:
    if key not in require_object(row, key):
        raise RowError(f"'{key}' is missing; {row_keys(row)}")
    if not isinstance(row[key], kind):
        name = {str: "a string", list: "a list", dict: "an object"}[kind]
        raise RowError(f"'{key}': expected {name}, found {type(row[key]).__name__}")
    return row[key]


def require_object(row: Any, key: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RowError(f"expected an object with '{key}', found {type(row).__name__}")
    return row


def json_or_value(value: Any, key: str) -> Any:
    """Parse a value that may be written as JSON text; None for blank text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError) as error:  # brackets nested thousands deep
        raise RowError(f"'{key}': not valid JSON: {error}") from error


def group_of(row: Any, key: str) -> str:
    if not isinstance(row, dict) or row.get(key) is None:
        raise RowError(
            f"'{key}' is missing or null; {row_keys(row)}",
            f"name another column than `group: {key}`, or fill it in every row",
        )
    return require_text(str(row[key]))


def row_keys(row: Any) -> str:
    if not isinstance(row, dict):
        return f"found {type(row).__name__}"
    return f"the row has: {', '.join(map(str, row)) or 'no keys'}"
