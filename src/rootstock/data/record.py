"""Records: typed artifacts on disk as JSON, refused where they are of another version."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from rootstock.data.files import read_json, write_json
from rootstock.errors import ArtifactError


class Record(BaseModel):
    """A frozen value; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Artifact(Record):
    """A record that a stage writes as a file of its own and later stages read."""

    made_by: ClassVar[str]
    """The stage that writes it."""

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            ArtifactError: the file is missing, damaged or of another version.
        """
        try:
            return cls.model_validate(read_json(path, made_by=cls.made_by))
        except ValidationError as error:
            raise ArtifactError(
                f"{path} is not a {cls.__name__} of this version: {error.error_count()} problems",
                hint=f"run the stage `{cls.made_by}` again",
            ) from None
