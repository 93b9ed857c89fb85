"""Prompts from the command line or a file, each answered on its own, for scripts."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snaketune.client.answer import ChatMessage
from snaketune.client.chat_client import ChatClient
from snaketune.core.errors import UserError
from snaketune.core.text import encodable, printable

JSON_LINES = (".jsonl", ".ndjson")
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Prompt:
    """A prompt with its messages.

    Attributes:
        source: The part of its row that the result repeats: its `prompt` or its `messages`.
        location: As file:line; "" for the command line.
    """

    source: dict[str, Any]
    messages: list[ChatMessage]
    location: str = ""


@dataclass(frozen=True)
class PromptResult:
    """The answers to one prompt; the one that is compared with comes from `base`."""

    values: dict[str, Any]
    errors: list[str]

    @property
    def answered(self) -> bool:
        """Whether both models answered, and neither ran out of turns with tools."""
        return not self.errors and self.values.get("finished") is not False

    def as_json(self) -> str:
        """One line that any terminal and decoder accepts."""
        text = json.dumps(self.values, ensure_ascii=False)
        # line separators and what json leaves of control characters and lone surrogates
        unsafe = "[\x7f-\x9f\u2028\u2029\ud800-\udfff]"
        return re.sub(unsafe, lambda match: f"\\u{ord(match[0]):04x}", text)

    def as_text(self) -> str:
        """The answer alone; with the models' names if there are two."""
        answers = [part for part in (self.values.get("base"), self.values) if part]
        if len(answers) == 1:
            return printable(self.values["answer"] or "")
        return "\n".join(f"{part['model']}:\n{printable(part['answer'] or '')}" for part in answers)


def text_prompt(text: str, location: str = "") -> Prompt:
    text = encodable(text)
    return Prompt({"prompt": text}, [{"role": "user", "content": text}], location)


def read_prompts(file: Path) -> list[Prompt]:
    """Read a file with one prompt per line; blank lines are skipped.

    In a .jsonl or .ndjson file a line is `{"prompt": "..."}` or `{"messages": [...]}`, and other
    keys are ignored; in any other file it is the prompt itself.

    Raises:
        UserError: The file cannot be read, or has no prompt or an invalid line.
    """
    try:
        # -sig: Windows editors write a BOM; split: splitlines would also split at U+2028
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}:{line}: not UTF-8 text: {error.reason}.") from error
    read = _json_prompt if file.suffix in JSON_LINES else text_prompt
    prompts = [
        read(line.removesuffix("\r"), f"{file}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not prompts:
        raise UserError(f"{file} contains no prompt.\n  Fix: write one per line.")
    return prompts


def _json_prompt(line: str, location: str) -> Prompt:
    expected = 'expected {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{location}: invalid JSON: {error}; {expected}.") from error
    match row:
        case {"prompt": _, "messages": _}:
            raise UserError(f"{location}: both `prompt` and `messages`; {expected}.")
        case {"prompt": str(text)} if text.strip():
            return text_prompt(text, location)
        case {"messages": messages} if _is_conversation(messages):
            messages = [{key: encodable(m[key]) for key in ("role", "content")} for m in messages]
            return Prompt({"messages": messages}, messages, location)
        case {"prompt": _} | {"messages": _}:
            key = "prompt" if "prompt" in row else "messages"
            raise UserError(f"{location}: invalid `{key}`; {expected}.")
    raise UserError(f"{location}: {expected}.")


def _is_conversation(value: object) -> bool:
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
    models: Mapping[str, ChatClient],
    system: str | None,
    report_error: Callable[[str], None],
) -> Iterator[PromptResult]:
    """Answer prompts one by one, each on its own.

    Args:
        models: "model", and "base" if that answers as well.
        system: System text for prompts without a system message of their own.
        report_error: Called with the reason if a prompt has no answer; its result then has `error`.
    """
    for prompt in prompts:
        messages = prompt.messages
        if system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        answers = {role: _answer(model, messages) for role, model in models.items()}
        errors = [answer["error"] for answer in answers.values() if "error" in answer]
        for error in errors:
            report_error(f"{prompt.location}: {error}" if prompt.location else error)
        own = answers.pop("model")
        yield PromptResult({"model": own.pop("model")} | prompt.source | own | answers, errors)


def _answer(model: ChatClient, messages: list[ChatMessage]) -> dict[str, Any]:
    try:
        figures = asdict(model.complete(messages))
    except UserError as error:
        return {"model": model.name, "answer": None, "error": str(error)}
    text = figures.pop("text")
    del figures["left_out"]
    figures["wall_seconds"] = round(figures["wall_seconds"], 3)
    return {"model": model.name, "answer": text} | figures
