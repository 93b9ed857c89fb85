"""A conversation with one model or two, and the file it is saved in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snaketune.chat.context import Message
from snaketune.chat.text import encodable, printable
from snaketune.core.errors import UserError
from snaketune.core.files import write_json


@dataclass
class Conversation:
    """What was said. Each model has heard its own questions and answers, and nobody else's.

    Attributes:
        system: The system text; None leaves the experiment's own in force.
        turns: By a model's role here ("model", "compared"), questions and answers in turn.
    """

    system: str | None = None
    turns: dict[str, list[Message]] = field(default_factory=dict)

    def asking(self, role: str, question: str) -> list[Message]:
        """Return what a model is sent when it is asked this now."""
        said = [*self.turns.get(role, []), {"role": "user", "content": question}]
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return system + said

    def answered(self, role: str, question: str, answer: str) -> None:
        """Keep a question with its answer, whole or stopped; one without a word is not kept."""
        if answer:
            self.turns.setdefault(role, []).extend(
                [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            )

    def save(self, file: Path, names: Mapping[str, str]) -> None:
        """Write it as rows of the data format `openai` are; `compared` holds the other model's.

        Args:
            names: The models by their roles.

        Raises:
            UserError: There is another kind of file, or the file cannot be written.
        """
        said = {
            role: {"model": names[role], "messages": self._with_system(turns)}
            for role, turns in self.turns.items()
        }
        whole = said.pop("model", {"model": names["model"], "messages": self._with_system([])})
        try:
            if file.exists():
                _read(file, "is there already, and is no saved conversation.\n  Fix: another name.")
            write_json(file, whole | said)
        except (OSError, ValueError) as error:  # a name too long, or with a zero byte
            raise UserError(f"cannot write {printable(str(error))}.") from error

    def load(self, file: Path) -> None:
        """Put a saved conversation in the place of this one.

        Raises:
            UserError: The file is missing or is none; this conversation stays.
        """
        saved = _read(file, "is no saved conversation.\n  Fix: take a file that /save has written.")
        turns = {"model": saved["messages"]}
        if "compared" in saved:
            turns["compared"] = saved["compared"]["messages"]
        first = turns["model"][:1]
        self.system = next((_plain(m)["content"] for m in first if m["role"] == "system"), None)
        self.turns = {
            role: [_plain(m) for m in said if m["role"] != "system"] for role, said in turns.items()
        }

    def _with_system(self, turns: list[Message]) -> list[Message]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return system + turns


def _read(file: Path, otherwise: str) -> dict[str, Any]:
    """Return a saved conversation.

    Raises:
        UserError: It cannot be read, or is something else: `otherwise`.
    """
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} {otherwise}") from error
    said = (
        [saved, saved["compared"]] if isinstance(saved, dict) and "compared" in saved else [saved]
    )
    if not all(isinstance(each, dict) and _is_dialogue(each.get("messages")) for each in said):
        raise UserError(f"{file} {otherwise}")
    return saved


def _plain(message: Message) -> Message:
    """Return a message as a model can be sent it."""
    return {"role": message["role"], "content": encodable(message["content"])}


def _is_dialogue(messages: object) -> bool:
    """Tell whether these are questions and answers in turn, perhaps after a system message."""
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
