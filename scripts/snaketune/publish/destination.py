"""What a place to publish to must do, and what its refusals mean to the one who asked."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from snaketune.core.errors import UserError
from snaketune.hub.repository import Listed

log = logging.getLogger(__name__)

MESSAGE = "Published with SnakeTune"


@dataclass(frozen=True)
class File:
    """A file to publish, as the manifest lists it."""

    name: str
    path: Path
    bytes: int
    sha256: str


def announced(files: Sequence[File]) -> Iterator[File]:
    """Give the files one by one, and say each one's number, name and size before it."""
    for number, file in enumerate(files, 1):
        log.info("%d of %d: %s, %s bytes", number, len(files), file.name, f"{file.bytes:,}")
        yield file


class Destination(Protocol):
    """A repository on a hub, opened with a token."""

    @property
    def where(self) -> str:
        """What to call it in a message: `hf:ORG/NAME`."""

    @property
    def page(self) -> str:
        """Its address for a browser."""

    def open(self, private: bool, licence: str | None) -> bool:
        """Make the repository if there is none; return whether it is private."""

    def listing(self, files: Sequence[File]) -> dict[str, Listed]:
        """Return what the repository holds; `files` help to tell equal bytes."""

    def send(self, files: Sequence[File]) -> None:
        """Upload files, and say so of each."""

    def revision(self) -> str:
        """Return what now names the repository's state."""


def refusal(status: int | None, where: str, variable: str, said: str) -> UserError:
    """Turn a hub's HTTP status into what is wrong and how to mend it.

    Args:
        status: None if no answer came.
        where: The destination, `hf:ORG/NAME`.
        variable: The environment variable of the token.
        said: The hub's or the network's own words.
    """
    wrong, fix = _MEANING.get(status, _FAILED if (status or 500) >= 500 else _REFUSED)
    said = re.sub(r"\?\S+", "?...", " ".join(said.split()))  # an address may carry a signature
    again = "; what has arrived there is not sent again" if "same command" in fix else ""
    return UserError(
        f"{where}: {wrong.format(variable=variable)}\n"
        f"  It said: {said[:300]}\n"
        f"  Fix: {fix.format(variable=variable)}{again}."
    )


_FAILED = ("the hub failed", "run the same command again later")
_REFUSED = ("the hub refused", "correct what it says, then run the same command")
_MEANING: dict[int | None, tuple[str, str]] = {
    None: ("the connection was lost", "check the network, then run the same command"),
    401: (
        "the hub does not know the token in {variable}",
        "make a token that may write on the hub's settings page and export it as {variable}",
    ),
    402: ("the account's storage is full or not paid", "free some on the hub's settings page"),
    403: (
        "the token in {variable} may not write there",
        "publish under your own name, or export a {variable} that may write for that one",
    ),
    404: (
        "there is no such place, or the token in {variable} may not see it",
        "check the spelling of ORG; an organisation is made on the hub's page",
    ),
    409: ("someone else is changing it", "run the same command again in a minute"),
    412: ("someone else is changing it", "run the same command again in a minute"),
    429: ("too many requests", "wait some minutes, then run the same command"),
}
