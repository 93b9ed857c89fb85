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

from snaketune.hub.repository import Listed
from snaketune.publish.destination import MESSAGE, File, announced, refusal
from snaketune.publish.request import TOKENS

log = logging.getLogger(__name__)

_BRANCH = "master"
_STATUS = {AuthenticationError: 401, PermissionDeniedError: 403, NotExistError: 404}
"""What an error means, whatever status the hub sent it with."""


class ModelScope:
    """A model repository."""

    def __init__(self, name: str, token: str) -> None:
        self.name, self.where = name, f"modelscope:{name}"
        config = HubConfig(token=token)
        self._api = HubApi(config)
        self.page = f"{config.endpoint}/models/{name}"

    def open(self, private: bool, licence: str | None) -> bool:
        """Check the token and make the repository if there is none.

        Returns:
            Whether it is private.

        Raises:
            UserError: The token is unknown or may not write, or the hub is out of reach.
        """
        with self._explained():
            log.info("%s: the token is %s's", self.where, self._api.whoami().username)
            try:
                found = self._api.get_repo(self.name, "model")
            except NotExistError:
                visibility = Visibility.PRIVATE if private else Visibility.PUBLIC
                self._api.create_repo(
                    self.name, "model", visibility=visibility, license=licence or "other"
                )
                return private
        return found.visibility != Visibility.PUBLIC

    def listing(self, files: Sequence[File]) -> dict[str, Listed]:
        """Return what the repository holds; a new one may have no branch yet."""
        with self._explained():
            try:
                found = self._api.list_repo_files(self.name, "model", revision=_BRANCH)
            except NotExistError:
                return {}
        return {each.path: Listed(each.size, each.sha256) for each in found if not each.is_dir}

    def send(self, files: Sequence[File]) -> None:
        """Upload and commit the files one by one.

        Raises:
            UserError: The hub refuses or the connection is lost; what was committed stays.
        """
        for file in announced(files):
            with self._explained():
                self._api.upload_file(
                    self.name,
                    "model",
                    file.path,
                    file.name,
                    commit_message=MESSAGE,
                    revision=_BRANCH,
                    disable_tqdm=True,
                )

    def revision(self) -> str:
        """Return the branch: the client does not tell commits."""
        return _BRANCH

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except APIError as error:
            status = _STATUS.get(type(error), error.status_code)
            raise refusal(status, self.where, TOKENS["modelscope"], str(error)) from error
        except (HubError, RequestException) as error:
            raise refusal(None, self.where, TOKENS["modelscope"], str(error)) from error
