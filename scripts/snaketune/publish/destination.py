"""The interface of a hub to publish to, and the explanation of its errors."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from snaketune.core.errors import UserError
from snaketune.hub.repository import RemoteFile

log = logging.getLogger(__name__)

COMMIT_MESSAGE = "Published with SnakeTune"


@dataclass(frozen=True)
class PublishedFile:
    """A file to publish, as the manifest lists it."""

    name: str
    path: Path
    bytes: int
    sha256: str


def logged(files: Sequence[PublishedFile]) -> Iterator[PublishedFile]:
    """Yield the files, logging number, name and size of each before it is sent."""
    for number, file in enumerate(files, 1):
        log.info("%d of %d: %s, %s bytes", number, len(files), file.name, f"{file.bytes:,}")
        yield file


class Destination(Protocol):
    """A repository on a hub, opened with a token."""

    @property
    def where(self) -> str:
        """Its name in messages: `hf:ORG/NAME`."""

    @property
    def page(self) -> str:
        """Its address for a browser."""

    def open(self, private: bool, licence: str | None) -> bool:
        """Create the repository if it does not exist; return whether it is private.

        Raises:
            UserError: The token is unknown or lacks write access, or the hub is unreachable.
        """

    def listing(self, files: Sequence[PublishedFile]) -> dict[str, RemoteFile]:
        """List the repository's files, each with its SHA-256 if it equals one of `files`."""

    def send(self, files: Sequence[PublishedFile]) -> None:
        """Upload and commit files.

        Raises:
            UserError: The hub refuses or the connection is lost. A repeat skips what is stored.
        """

    def revision(self) -> str:
        """Identify the repository's current state."""


def explain_status(status: int | None, where: str, variable: str, details: str) -> UserError:
    """Turn a hub's HTTP status into what is wrong and how to fix it.

    Args:
        status: None if no response arrived.
        where: The destination, `hf:ORG/NAME`.
        variable: The environment variable of the token.
        details: The error message of the hub or the network.
    """
    wrong, fix = _MEANING.get(status, _HUB_FAILED if (status or 500) >= 500 else _REFUSED)
    # an address may carry a signature that grants access to the upload
    details = re.sub(r"\?\S+", "?...", " ".join(details.split()))
    resumes = "; files that were uploaded are not sent again" if "same command" in fix else ""
    return UserError(
        f"{where}: {wrong.format(variable=variable)}\n"
        f"  Details: {details[:300]}\n"
        f"  Fix: {fix.format(variable=variable)}{resumes}."
    )


_HUB_FAILED = ("the hub failed", "run the same command again later")
_REFUSED = ("the hub refused", "correct what the details name, then run the same command")
_CONFLICT = ("the repository is being changed by someone else", "run the same command in a minute")
_MEANING: dict[int | None, tuple[str, str]] = {
    None: ("the connection was lost", "check the network, then run the same command"),
    401: (
        "the hub does not know the token in {variable}",
        "create a token with write access on the hub's settings page and export it as {variable}",
    ),
    402: ("the account's storage is full or unpaid", "free some on the hub's settings page"),
    403: (
        "the token in {variable} has no write access there",
        "publish under your own name, or export a {variable} with write access to that one",
    ),
    404: (
        "it does not exist, or the token in {variable} has no access to it",
        "check the spelling of ORG; organisations are created on the hub's page",
    ),
    409: _CONFLICT,
    412: _CONFLICT,
    429: ("too many requests", "wait some minutes, then run the same command"),
}
