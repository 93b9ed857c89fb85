"""Repositories on ModelScope, read with its own client."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snaketune.core.errors import UserError
from snaketune.hub.repository import Kind, RemoteFile, mirror_places, unreachable


class ModelScopeHub:
    """A repository on ModelScope, or on the server MODELSCOPE_ENDPOINT names."""

    def __init__(self, name: str, revision: str, kind: Kind) -> None:
        from modelscope_hub import HubApi

        self.name, self.revision, self.kind = name, revision, kind
        self.where = f"modelscope:{name}"
        self._api = HubApi()

    def files(self) -> dict[str, RemoteFile]:
        """List the files at the revision.

        Raises:
            UserError: There is no such repository or revision, or a token is needed.
            Unreachable: The hub does not respond.
        """
        with self._explained():
            listed = self._api.list_repo_files(self.name, self.kind, revision=self.revision)
        return {file.path: RemoteFile(file.size, file.sha256) for file in listed if not file.is_dir}

    def download(self, name: str, folder: Path) -> None:
        """Download a file, continuing an interrupted attempt in its middle.

        Raises:
            Unreachable: The connection was lost.
        """
        with self._explained():
            self._api.download_file(
                self.name, self.kind, name, revision=self.revision, local_dir=folder
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from modelscope_hub import errors
        from requests import RequestException

        source = self.where
        try:
            yield
        except (
            errors.NotExistError,
            errors.AuthenticationError,
            errors.PermissionDeniedError,
        ) as error:
            raise UserError(
                f"{self.kind} {source} does not exist at revision {self.revision}, or is private "
                f"({error}).\n"
                "  Fix: check the name and the revision; for a private one set "
                "MODELSCOPE_API_TOKEN."
            ) from error
        except (errors.HubError, RequestException) as error:
            fix = "check the network, or set MODELSCOPE_ENDPOINT to a reachable server"
            place = mirror_places("modelscope", self.name, self.kind)[0]
            raise unreachable(source, "ModelScope", error, fix, place) from error
