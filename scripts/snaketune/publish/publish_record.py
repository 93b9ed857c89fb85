"""What was published, and where: the file `published`."""

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from snaketune.core.manifest import FileEntry
from snaketune.core.records import Record


class PublishRecord(Record):
    """The destination and the files that it holds now. What is None is left out of the file.

    Attributes:
        to: As it was requested, `hf:ORG/NAME`.
        what: `merged` or `adapter`.
        folder: The absolute path of the folder made for OpenXLab; None on a hub.
        page: The repository's address for a browser; None for a folder, as the next two are.
        revision: Of the repository after the upload: a commit, or ModelScope's branch.
        private: Whether the repository is private, however it was requested.
    """

    to: str
    what: str
    folder: str | None = None
    page: str | None = None
    revision: str | None = None
    private: bool | None = None
    files: list[FileEntry]

    @model_serializer(mode="wrap")
    def _omit_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}
