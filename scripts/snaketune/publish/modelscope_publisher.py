"""Publishing to ModelScope, or the server MODELSCOPE_ENDPOINT names, with its own client.

Its client commits a file at a time, the weights first and the manifest last.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from modelscope_hub import HubApi, HubConfig
from modelscope_hub.constants import Visibility
from modelscope_hub.errors import (
    APIError,
    AuthenticationError,
    HubError,
    NotExistError,
    PermissionDeniedError,
)
from requests import RequestException

from snaketune.hub.repository import RemoteFile
from snaketune.publish.destination import COMMIT_MESSAGE, PublishedFile, explain_status, logged
from snaketune.publish.publish_config import TOKENS

log = logging.getLogger(__name__)

_BRANCH = "master"
_STATUS = {AuthenticationError: 401, PermissionDeniedError: 403, NotExistError: 404}
"""The statuses of these errors; the hub sends them with others, such as 400."""


class ModelScopePublisher:
    """A model repository on ModelScope, as a `Destination`."""

    def __init__(self, name: str, token: str) -> None:
        self.name, self.where = name, f"modelscope:{name}"
        config = HubConfig(token=token)
        self._api = HubApi(config)
        self.page = f"{config.endpoint}/models/{name}"

    def open(self, private: bool, licence: str | None) -> bool:
        with self._explaining_errors():
            log.info("%s: the token belongs to %s", self.where, self._api.whoami().username)
            try:
                repository = self._api.get_repo(self.name, "model")
            except NotExistError:
                visibility = Visibility.PRIVATE if private else Visibility.PUBLIC
                self._api.create_repo(
                    self.name, "model", visibility=visibility, license=licence or "other"
                )
                return private
        return repository.visibility != Visibility.PUBLIC

    def listing(self, files: Sequence[PublishedFile]) -> dict[str, RemoteFile]:
        with self._explaining_errors():
            try:
                listed = self._api.list_repo_files(self.name, "model", revision=_BRANCH)
            except NotExistError:  # a new repository has no branch until the first commit
                return {}
        return {
            entry.path: RemoteFile(entry.size, entry.sha256) for entry in listed if not entry.is_dir
        }

    def send(self, files: Sequence[PublishedFile]) -> None:
        for file in logged(files):
            with self._explaining_errors():
                self._api.upload_file(
                    self.name,
                    "model",
                    file.path,
                    file.name,
                    commit_message=COMMIT_MESSAGE,
                    revision=_BRANCH,
                    disable_tqdm=True,
                )

    def revision(self) -> str:
        """Return the branch, as the client does not report commits."""
        return _BRANCH

    @contextmanager
    def _explaining_errors(self) -> Iterator[None]:
        try:
            yield
        except APIError as error:
            status = _STATUS.get(type(error), error.status_code)
            raise explain_status(status, self.where, TOKENS["modelscope"], str(error)) from error
        except (HubError, RequestException) as error:
            raise explain_status(None, self.where, TOKENS["modelscope"], str(error)) from error
