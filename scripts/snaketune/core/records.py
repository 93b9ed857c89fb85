"""Typed records: the JSON files that one stage writes and another reads.

A record is a pydantic model in the package of the stage that writes it. Its file carries the
version of its shape, so that a file of another SnakeTune is read or refused, never misread.
"""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, write_json

VERSION_KEY = "record_version"


class Record(BaseModel):
    """A JSON file with a fixed shape.

    Raise `VERSION` when a key is renamed, removed or changes its meaning, and teach `upgrade` the
    shape before; a new key with a default needs neither. Files from before versions were written
    have none: they are version 1.
    """

    # unknown keys are left alone: a file of a newer release with the same version can be read
    model_config = ConfigDict(frozen=True, extra="ignore")

    VERSION: ClassVar[int] = 1

    DIGEST_IS_IDENTITY: ClassVar[bool] = False
    """Set where the file's SHA-256 is part of a run's id: made again, it must have the same bytes
    as before versions existed. So version 1 is not written, nor are fields that nobody set."""

    def write(self, path: Path) -> None:
        """Write the file atomically; keys that are None are written too."""
        versioned = self.VERSION > 1 or not self.DIGEST_IS_IDENTITY
        version = {VERSION_KEY: self.VERSION} if versioned else {}
        write_json(
            path, version | self.model_dump(mode="json", exclude_unset=self.DIGEST_IS_IDENTITY)
        )

    @classmethod
    def read(cls, path: Path, rebuild: str | None = None) -> Self:
        """Read the file, bringing an older shape up to date.

        Args:
            rebuild: The command that makes the file anew; default: `snakemake PATH`.

        Raises:
            UserError: It is missing, damaged, or of a version that cannot be read.
        """
        values = read_json(path)
        fix = f"  Fix: delete it and build it again: rm {path} && {rebuild or f'snakemake {path}'}"
        if not isinstance(values, dict):
            raise UserError(f"{path} is damaged: expected a JSON object.\n{fix}")
        version = values.pop(VERSION_KEY, 1)
        if version != cls.VERSION:
            values = cls._upgraded(values, version, path, fix)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "it"
            raise UserError(f"{path} is damaged: {key}: {first['msg']}.\n{fix}") from error

    @classmethod
    def upgrade(cls, values: dict[str, Any], version: int) -> dict[str, Any] | None:
        """Return the values of an older version in today's shape, None if that cannot be done."""
        return None

    @classmethod
    def _upgraded(
        cls, values: dict[str, Any], version: Any, path: Path, fix: str
    ) -> dict[str, Any]:
        if isinstance(version, int) and version > cls.VERSION:
            raise UserError(
                f"{path} was written by a newer SnakeTune (record version {version}, this one "
                f"reads up to {cls.VERSION}).\n  Fix: update SnakeTune: git pull"
            )
        older = cls.upgrade(values, version) if isinstance(version, int) else None
        if older is None:
            raise UserError(f"{path} has record version {version}, expected {cls.VERSION}.\n{fix}")
        return older
