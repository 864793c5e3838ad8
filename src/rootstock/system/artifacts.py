"""Records: typed artifacts on disk as JSON; other versions are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rootstock.errors import ArtifactError
from rootstock.system.digest import digest_json
from rootstock.system.files import explain_format, read_json, write_json


class Record(BaseModel):
    """A frozen value; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


R = TypeVar("R", bound=Record)


def measured_once(
    folder: Path,
    identity: Sequence[object],
    kind: type[R],
    measure: Callable[[], R],
    *,
    digits: int = 20,
    renew: Callable[[R], R] | None = None,
) -> R:
    """Return the first result of ``measure``, which a file in ``folder`` keeps.

    ``renew`` may replace a record of an earlier process by a newer one.

    A file that is damaged or of another version is measured again. ``identity`` is everything on
    which the measurement depends; the file's name is the first ``digits`` of its digest.
    """
    path = folder / f"{digest_json(identity, digits=digits)}.json"
    try:
        known = kind.model_validate(read_json(path, made_by=""))
    except (ArtifactError, ValidationError):
        record = measure()
    else:
        record = renew(known) if renew else known
        if record == known:
            return known
    write_json(path, record.model_dump(mode="json"))
    return record


class Artifact(Record):
    """A record that a stage writes to a file, and later stages read."""

    made_by: ClassVar[str]
    """The stage that writes it."""

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an artifact that `write` wrote.

        Raises:
            ArtifactError: the file is missing, damaged or of another version.
        """
        tree = read_json(path, made_by=cls.made_by)
        again = f"run the stage `{cls.made_by}` again"
        version = cls.model_fields.get("format_version")
        if version is not None:
            # Check the version first: a later format may differ in everything else.
            problem = explain_format(
                tree.get("format_version"), version.default, path=path, again=again
            )
            if problem:
                raise ArtifactError(problem[0], hint=problem[1])
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise ArtifactError(
                f"{path} is not a {cls.__name__} of this version: {error.error_count()} problems",
                hint=again,
            ) from None
