"""The model registry: versions of a named model, aliases, and a log of who was champion."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rootstock.errors import TrackingError

TOKEN = r"\w[\w.\- ]{0,254}"
"""What names, versions, run ids and aliases look like: they become parts of paths."""


def is_token(text: str) -> bool:
    """Return whether ``text`` may be a part of a path: no separator, and no dot at its start."""
    return re.fullmatch(TOKEN, text) is not None


@dataclass(frozen=True)
class RegistryEntry:
    """One registered version of a model.

    Raises:
        TrackingError: the registry gives a name, version, run id or alias that could lead out of a
            folder.
    """

    name: str
    version: str
    run_id: str = ""
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is not a token."""
        for text in (self.name, self.version, self.run_id or "none", *self.aliases):
            if not is_token(text):
                raise TrackingError(
                    f"the registry holds {text!r} as a name, version, run or alias",
                    hint="they consist of letters, digits and . _ - and blanks; is the registry "
                    "yours?",
                )


@dataclass(frozen=True)
class Record:
    """One line of a model's log: ``number`` from 1 on, ``at`` by the registry's clock (Unix)."""

    number: int
    version: str
    at: float
    facts: Mapping[str, str] = field(default_factory=dict)


class RegistryReader(Protocol):
    """Versions of a named model, to be found and fetched: all that a service needs."""

    def find(self, name: str, *, alias: str = "", version: str = "") -> RegistryEntry:
        """The entry under an alias or version; raises NoModelError."""
        ...

    def versions(self, name: str) -> Sequence[RegistryEntry]: ...
    def download(self, entry: RegistryEntry, target: Path) -> Path:
        """Fetch the version's bundle into ``target``; returns the bundle directory."""
        ...


class ModelRegistry(RegistryReader, Protocol):
    """Versions of a named model, and aliases such as ``champion`` that point to one.

    Each model has a log that is only ever appended to. It is what decides between processes:
    `append_record` is atomic, no number is given twice, and who sees a record sees all before it.
    """

    def register(
        self, name: str, bundle: Path, *, run_id: str, tags: Mapping[str, str], description: str
    ) -> RegistryEntry: ...
    def holds_files(self, entry: RegistryEntry) -> bool:
        """Whether the version's bundle is still there."""
        ...

    def set_alias(self, name: str, alias: str, version: str) -> None: ...
    def drop_alias(self, name: str, alias: str) -> None: ...
    def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None: ...
    def describe(self, name: str, version: str, description: str) -> None:
        """Replace the description of one version."""
        ...

    def append_record(self, name: str, version: str, facts: Mapping[str, str]) -> int:
        """Append to the model's log; returns the record's number.

        After an error the record may be there or not: `records` tells.
        """
        ...

    def records(self, name: str) -> Sequence[Record]:
        """The model's log, oldest first."""
        ...

    def note_on_record(self, name: str, number: int, facts: Mapping[str, str]) -> None:
        """Add facts to a record; those it was appended with stay."""
        ...
