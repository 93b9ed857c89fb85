"""Publishing to the Hugging Face hub, or the server HF_ENDPOINT names, with its own client.

Large files are stored first, one at a time, and one commit then makes all files visible at once:
a repository never shows half a model, and a repeated upload skips what is stored.
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
from snaketune.hub.repository import Listed
from snaketune.publish.destination import MESSAGE, File, announced, refusal
from snaketune.publish.request import TOKENS

log = logging.getLogger(__name__)


class HuggingFace:
    """A model repository."""

    def __init__(self, name: str, token: str) -> None:
        self.name, self.where = name, f"hf:{name}"
        self._api = HfApi(token=token)
        self.page = f"{self._api.endpoint}/{name}"
        self._commit: str | None = None

    def open(self, private: bool, licence: str | None) -> bool:
        """Check the token and make the repository if there is none.

        Returns:
            Whether it is private.

        Raises:
            UserError: The token is unknown or may not write, or the hub is out of reach.
        """
        with self._explained():
            log.info("%s: the token is %s's", self.where, self._api.whoami()["name"])
            self._api.create_repo(self.name, private=private, exist_ok=True)
            return bool(self._api.model_info(self.name).private)

    def listing(self, files: Sequence[File]) -> dict[str, Listed]:
        """Return what the repository holds, with the SHA-256 of what is the same as `files`."""
        with self._explained():
            info = self._api.model_info(self.name, revision=self._commit, files_metadata=True)
        ours = {file.name: file for file in files}
        return {
            each.rfilename: Listed(each.size or 0, _sha256(each, ours.get(each.rfilename)))
            for each in info.siblings or []
        }

    def send(self, files: Sequence[File]) -> None:
        """Store the large files one by one, then commit all.

        Raises:
            UserError: The hub refuses or the connection is lost; nothing was committed.
        """
        with self._explained():
            additions = []
            for file in announced(files):
                additions.append(CommitOperationAdd(file.name, file.path))
                self._api.preupload_lfs_files(self.name, additions[-1:], free_memory=False)
            commit = self._api.create_commit(self.name, additions, commit_message=MESSAGE)
            self._commit = commit.oid

    def revision(self) -> str:
        """Return the commit that was made, or else the newest."""
        with self._explained():
            return self._commit or str(self._api.model_info(self.name).sha)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except HFValidationError as error:
            raise UserError(
                f"{self.where} is no name the hub takes: {error}\n  Fix: choose another in to=."
            ) from error
        except (httpx2.HTTPError, OfflineModeIsEnabled, RuntimeError, ValueError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> UserError:
        """Explain an error; the client wraps those of single files in a RuntimeError."""
        variable = TOKENS["hf"]
        cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            return refusal(cause.response.status_code, self.where, variable, str(cause))
        if isinstance(cause, ValueError):  # e.g. metadata in README.md that the hub does not take
            return refusal(400, self.where, variable, str(cause))
        return refusal(None, self.where, variable, str(cause) or type(cause).__name__)


def _sha256(there: RepoSibling, ours: File | None) -> str | None:
    """Return a stored file's SHA-256; of small ones the hub tells git's hash, to be compared."""
    if there.lfs:
        return there.lfs.sha256
    if ours and ours.bytes == there.size and git_hash(ours.path.read_bytes()) == there.blob_id:
        return ours.sha256
    return f"git:{there.blob_id}"
