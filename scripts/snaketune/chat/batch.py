"""One-shot: prompts from the command line or a file, each answered by itself, for scripts."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snaketune.chat.context import Message
from snaketune.chat.model import Speaker
from snaketune.chat.text import encodable
from snaketune.core.errors import UserError

JSON_LINES = (".jsonl", ".ndjson")
KEYS = ("prompt", "messages")
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Prompt:
    """A question of its own.

    Attributes:
        told: What the result repeats of it: its `prompt` or its `messages`.
        messages: What is sent.
        place: Where it stands, as file:line; "" for the command line.
    """

    told: dict[str, Any]
    messages: list[Message]
    place: str = ""


def prompt(text: str, place: str = "") -> Prompt:
    """Return a text as a prompt."""
    text = encodable(text)
    return Prompt({"prompt": text}, [{"role": "user", "content": text}], place)


def read_prompts(file: Path) -> list[Prompt]:
    """Read the prompts of a file, which has one on a line; blank lines are left out.

    With a name that ends in .jsonl or .ndjson each line is `{"prompt": "..."}` or
    `{"messages": [...]}`, and other keys are not looked at; else it is the prompt itself.

    Raises:
        UserError: The file cannot be read, has no prompt, or a line that is none.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}:{line}: no UTF-8 text: {error.reason}.") from error
    read = _from_json if file.suffix in JSON_LINES else prompt
    found = [
        read(line.removesuffix("\r"), f"{file}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise UserError(f"{file} has no prompt.\n  Fix: write one on each line.")
    return found


def _from_json(line: str, place: str) -> Prompt:
    expected = 'expected {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: no JSON: {error}; {expected}.") from error
    given = [key for key in KEYS if isinstance(row, dict) and key in row]
    if len(given) != 1:
        raise UserError(f"{place}: {expected}, one of the two.")
    value = row[given[0]]
    if given == ["prompt"] and isinstance(value, str) and value.strip():
        return prompt(value, place)
    if given == ["messages"] and _is_conversation(value):
        messages = [{key: encodable(m[key]) for key in ("role", "content")} for m in value]
        return Prompt({"messages": messages}, messages, place)
    raise UserError(f"{place}: `{given[0]}` is not as it should be; {expected}.")


def _is_conversation(value: object) -> bool:
    """Tell whether these are messages of which the last is a question."""
    return (
        isinstance(value, list)
        and all(
            isinstance(m, dict) and m.get("role") in _ROLES and isinstance(m.get("content"), str)
            for m in value
        )
        and bool(value)
        and value[-1]["role"] == "user"
    )


def answer_all(
    prompts: Iterable[Prompt],
    speakers: Mapping[str, Speaker],
    system: str | None,
    complain: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Yield the result of each prompt, which is answered by itself.

    Args:
        speakers: Who answers: "model", and "base" if that is asked as well.
        system: Put before prompts that bring no system message of their own.
        complain: Is told why a prompt has no answer; its result then has `error`.

    Yields:
        What the prompt was and the model's answer, with the base's below `base`.
    """
    for each in prompts:
        messages = each.messages
        if system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        found = {role: _answered(speaker, messages) for role, speaker in speakers.items()}
        for result in found.values():
            if "error" in result:
                complain(f"{each.place}: {result['error']}" if each.place else result["error"])
        own = found.pop("model")
        yield {"model": own.pop("model")} | each.told | own | found


def _answered(speaker: Speaker, messages: list[Message]) -> dict[str, Any]:
    try:
        with closing(speaker.reply(messages)) as pieces:  # type: ignore[type-var]
            text = "".join(pieces)
    except UserError as error:
        return {"model": speaker.name, "answer": None, "error": str(error)}
    figures = asdict(speaker.answer)
    del figures["text"], figures["left_out"]
    figures["wall_seconds"] = round(figures["wall_seconds"], 3)
    return {"model": speaker.name, "answer": text} | figures


def as_json(result: Mapping[str, Any]) -> str:
    """Return a result in one line that any terminal and decoder takes."""
    text = json.dumps(result, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)
