"""The history of a chat with one model or two, and the file it is saved in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snaketune.client.answer import ChatMessage
from snaketune.core.errors import UserError
from snaketune.core.files import write_json
from snaketune.core.text import encodable, printable


@dataclass
class ChatHistory:
    """Prompts and answers; each model remembers its own and knows nothing of the other's.

    Attributes:
        system: The system text; None leaves the experiment's own in force.
        turns: Messages by the model's role here ("model", "compared"), prompts and answers in turn.
    """

    system: str | None = None
    turns: dict[str, list[ChatMessage]] = field(default_factory=dict)

    def messages(self, role: str, prompt: str) -> list[ChatMessage]:
        return self._with_system([*self.turns.get(role, []), {"role": "user", "content": prompt}])

    def add(self, role: str, prompt: str, answer: str) -> None:
        """Keep a prompt with its answer, also one that was interrupted; an empty one is dropped."""
        if answer:
            self.turns.setdefault(role, []).extend(
                [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            )

    def save(self, file: Path, names: Mapping[str, str]) -> None:
        """Write a row of the data format `openai`, with the other model's messages in `compared`.

        Args:
            names: The models by their roles.

        Raises:
            UserError: The name is that of another kind of file, or cannot be written.
        """
        parts = {
            role: {"model": names[role], "messages": self._with_system(turns)}
            for role, turns in self.turns.items()
        }
        row = parts.pop("model", {"model": names["model"], "messages": self._with_system([])})
        try:
            if file.exists():
                _read(file, "exists and is not a saved chat.\n  Fix: choose another name.")
            write_json(file, row | parts)
        except (OSError, ValueError) as error:  # a name too long, or with a zero byte
            raise UserError(f"cannot write {printable(str(error))}.") from error

    def load(self, file: Path) -> None:
        """Replace this history by a saved one.

        Raises:
            UserError: The file is missing or invalid; this history stays.
        """
        saved = _read(file, "is not a saved chat.\n  Fix: choose a file that /save has written.")
        turns = {"model": saved["messages"]}
        if "compared" in saved:
            turns["compared"] = saved["compared"]["messages"]
        first = turns["model"][:1]
        self.system = next((_plain(m)["content"] for m in first if m["role"] == "system"), None)
        self.turns = {
            role: [_plain(m) for m in messages if m["role"] != "system"]
            for role, messages in turns.items()
        }

    def _with_system(self, messages: list[ChatMessage]) -> list[ChatMessage]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return system + messages


def _read(file: Path, problem: str) -> dict[str, Any]:
    """Read a saved chat; raise UserError with `problem` if the file holds anything else."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} {problem}") from error
    parts = (
        [saved, saved["compared"]] if isinstance(saved, dict) and "compared" in saved else [saved]
    )
    if not all(isinstance(part, dict) and _is_dialogue(part.get("messages")) for part in parts):
        raise UserError(f"{file} {problem}")
    return saved


def _plain(message: ChatMessage) -> ChatMessage:
    # a file may have other keys, which servers refuse
    return {"role": message["role"], "content": encodable(message["content"])}


def _is_dialogue(messages: object) -> bool:
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        return False
    roles = [message["role"] for message in messages]
    roles = roles[1:] if roles[:1] == ["system"] else roles
    return roles == ["user", "assistant"] * (len(roles) // 2)


def _is_message(message: object) -> bool:
    return (
        isinstance(message, dict)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
    )
