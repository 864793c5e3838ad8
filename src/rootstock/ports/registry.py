"""The model registry: versions of a named model, aliases, and the history of champions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rootstock.errors import TrackingError

TOKEN = r"\w[\w.\- ]{0,254}"
"""The form of names, versions, run ids and aliases, which become parts of paths."""


def is_token(text: str) -> bool:
    """Return whether ``text`` is safe in a path: no separator, and no dot at the start."""
    return re.fullmatch(TOKEN, text) is not None


@dataclass(frozen=True)
class RegistryEntry:
    """One registered version of a model.

    Raises:
        TrackingError: the registry has a name, version, run id or alias that could leave a folder.
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
                    f"the registry contains the invalid name, version, run or alias {text!r}",
                    hint="allowed are letters, digits, blanks and . _ -; check that the registry "
                    "is yours",
                )


@dataclass(frozen=True)
class Record:
    """One line of a model's log: ``number`` counts from 1, ``at`` is the registry's time (Unix)."""

    number: int
    version: str
    at: float
    facts: Mapping[str, str] = field(default_factory=dict)


class RegistryReader(Protocol):
    """Finds and downloads versions of a named model: everything that a service needs."""

    def find(self, name: str, *, alias: str = "", version: str = "") -> RegistryEntry:
        """Return the entry under an alias or version; raise NoModelError if there is none."""
        ...

    def versions(self, name: str) -> Sequence[RegistryEntry]: ...
    def download(self, entry: RegistryEntry, target: Path) -> Path:
        """Download the version's bundle into ``target``; return the bundle directory."""
        ...


class ModelRegistry(RegistryReader, Protocol):
    """Versions of a named model, and aliases such as ``champion`` that point to one.

    Each model has an append-only log, which decides between processes: `append_record` is atomic,
    numbers are unique, and a process that sees a record sees all earlier ones.
    """

    def register(
        self, name: str, bundle: Path, *, run_id: str, tags: Mapping[str, str], description: str
    ) -> RegistryEntry: ...
    def holds_files(self, entry: RegistryEntry) -> bool:
        """Return whether the version's bundle still exists."""
        ...

    def set_alias(self, name: str, alias: str, version: str) -> None: ...
    def drop_alias(self, name: str, alias: str) -> None: ...
    def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None: ...
    def describe(self, name: str, version: str, description: str) -> None:
        """Replace the description of one version."""
        ...

    def append_record(self, name: str, version: str, facts: Mapping[str, str]) -> int:
        """Append to the model's log; return the record's number.

        After an error the record may exist or not: `records` shows it.
        """
        ...

    def records(self, name: str) -> Sequence[Record]:
        """Return the model's log, oldest first."""
        ...

    def note_on_record(self, name: str, number: int, facts: Mapping[str, str]) -> None:
        """Add facts to a record; the original ones do not change."""
        ...
