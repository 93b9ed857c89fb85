"""Publishing to the Hugging Face hub, or the server HF_ENDPOINT names, with its own client.

Large files are stored first, one at a time. One commit then makes all files visible at once: a
repository never shows half a model, and a repeated upload skips what is stored.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils.sha import git_hash

from snaketune.core.errors import UserError
from snaketune.hub.repository import RemoteFile
from snaketune.publish.destination import COMMIT_MESSAGE, PublishedFile, explain_status, logged
from snaketune.publish.publish_config import TOKENS

log = logging.getLogger(__name__)


class HuggingFacePublisher:
    """A model repository on the hub, as a `Destination`."""

    def __init__(self, name: str, token: str) -> None:
        self.name, self.where = name, f"hf:{name}"
        self._api = HfApi(token=token)
        self.page = f"{self._api.endpoint}/{name}"
        self._commit: str | None = None

    def open(self, private: bool, licence: str | None) -> bool:
        with self._explaining_errors():
            log.info("%s: the token belongs to %s", self.where, self._api.whoami()["name"])
            self._api.create_repo(self.name, private=private, exist_ok=True)
            return bool(self._api.model_info(self.name).private)

    def listing(self, files: Sequence[PublishedFile]) -> dict[str, RemoteFile]:
        with self._explaining_errors():
            info = self._api.model_info(self.name, revision=self._commit, files_metadata=True)
        ours = {file.name: file for file in files}
        return {
            stored.rfilename: RemoteFile(
                stored.size or 0, _sha256(stored, ours.get(stored.rfilename))
            )
            for stored in info.siblings or []
        }

    def send(self, files: Sequence[PublishedFile]) -> None:
        with self._explaining_errors():
            additions = []
            for file in logged(files):
                additions.append(CommitOperationAdd(file.name, file.path))
                # create_commit needs the content again if the hub stores the file in git itself
                self._api.preupload_lfs_files(self.name, additions[-1:], free_memory=False)
            commit = self._api.create_commit(self.name, additions, commit_message=COMMIT_MESSAGE)
            self._commit = commit.oid

    def revision(self) -> str:
        """Return the commit of `send`, or the newest if nothing was sent."""
        with self._explaining_errors():
            return self._commit or str(self._api.model_info(self.name).sha)

    @contextmanager
    def _explaining_errors(self) -> Iterator[None]:
        try:
            yield
        except HFValidationError as error:
            raise UserError(
                f"the hub does not accept the name {self.where}: {error}\n"
                "  Fix: choose another name in to=."
            ) from error
        except (httpx2.HTTPError, OfflineModeIsEnabled, RuntimeError, ValueError) as error:
            raise self._explanation(error) from error

    def _explanation(self, error: Exception) -> UserError:
        variable = TOKENS["hf"]
        # the client wraps the error of a single file in a RuntimeError
        cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            return explain_status(cause.response.status_code, self.where, variable, str(cause))
        if isinstance(cause, ValueError):  # e.g. metadata in README.md that the hub rejects
            return explain_status(400, self.where, variable, str(cause))
        return explain_status(None, self.where, variable, str(cause) or type(cause).__name__)


def _sha256(stored: RepoSibling, ours: PublishedFile | None) -> str | None:
    if stored.lfs:
        return stored.lfs.sha256
    # the hub has no SHA-256 of small files, which git stores itself, but their git blob id
    if ours and ours.bytes == stored.size and git_hash(ours.path.read_bytes()) == stored.blob_id:
        return ours.sha256
    return f"git:{stored.blob_id}"
