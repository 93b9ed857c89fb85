"""Fetch and verify files from model hubs, mirrors, wheels and local folders."""

from snaketune.hub.download import (
    FetchedFiles,
    fetch,
    fetch_dataset,
    move_files,
    resumable_download,
)
from snaketune.hub.provenance import Provenance
from snaketune.hub.repository import Unreachable

__all__ = [
    "FetchedFiles",
    "Provenance",
    "Unreachable",
    "fetch",
    "fetch_dataset",
    "move_files",
    "resumable_download",
]
