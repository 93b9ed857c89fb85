"""Repositories on the Hugging Face hub, read with its own client."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from snaketune.core.errors import UserError
from snaketune.hub.repository import Kind, RemoteFile, mirror_places, unreachable

log = logging.getLogger(__name__)


class HuggingFaceHub:
    """A repository on the Hugging Face hub, or on the server HF_ENDPOINT names."""

    def __init__(self, name: str, revision: str, kind: Kind) -> None:
        self.name, self.revision, self.kind = name, revision, kind
        self.where = f"hf:{name}"

    def files(self) -> dict[str, RemoteFile]:
        """List the files at the revision, and pin the revision to its commit.

        Raises:
            UserError: There is no such repository or revision, or a token is needed.
            Unreachable: The hub does not respond.
        """
        describe = HfApi().model_info if self.kind == "model" else HfApi().dataset_info
        with self._explained():
            info = describe(self.name, revision=self.revision, files_metadata=True)
        if info.sha and info.sha != self.revision:
            log.info("revision %s is commit %s; name that to pin it", self.revision, info.sha)
            self.revision = info.sha
        return {
            file.rfilename: RemoteFile(file.size or 0, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or []
        }

    def download(self, name: str, folder: Path) -> None:
        """Download one file, or take it from the library's own cache.

        Raises:
            Unreachable: The connection was lost.
        """
        # not snapshot_download: Ctrl-C would have to wait for its other threads
        with self._explained():
            hf_hub_download(
                self.name, name, repo_type=self.kind, revision=self.revision, local_dir=folder
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        source, page = self.where, f"{constants.ENDPOINT}/{self.name}"
        try:
            yield
        except GatedRepoError as error:
            raise UserError(
                f"{source} requires its licence to be accepted.\n"
                f"  Fix: accept it at {page}, then set HF_TOKEN to a token of that account."
            ) from error
        except (RepositoryNotFoundError, HFValidationError) as error:
            raise UserError(
                f"{self.kind} {source} does not exist at {constants.ENDPOINT}, or is private.\n"
                "  Fix: check the name; for a private one set HF_TOKEN."
            ) from error
        except RevisionNotFoundError as error:
            raise UserError(
                f"{source} has no revision {self.revision}.\n"
                f"  Fix: take a commit hash from {page}/commits/main."
            ) from error
        except (
            httpx2.HTTPError,
            XetDownloadError,
            OfflineModeIsEnabled,
            EntryNotFoundError,
            FileMetadataError,
        ) as error:
            fix = "check the network, or set HF_ENDPOINT to a reachable server"
            place = mirror_places("hf", self.name, self.kind)[0]
            raise unreachable(source, constants.ENDPOINT, error, fix, place) from error
