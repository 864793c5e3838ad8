"""The interface through which the index uses a task's targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from rootstock.data.columns import Columns
    from rootstock.data.entry import Entry


class Settled(NamedTuple):
    """Targets as stored in the manifest, and notes for the user."""

    texts: list[str]
    warnings: list[str]


class FolderSource(Protocol):
    """Lists the images of a folder with their targets, and collects ``warnings``."""

    warnings: list[str]

    def read(self) -> list[Entry]:
        """Return the candidate images."""
        ...


class TargetReader(Protocol):
    """Reads the targets of a table or of folders; every task implements it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that hold a target."""
        ...

    @property
    def in_folders(self) -> bool:
        """Whether the name of a class folder is a target."""
        ...

    def open_folder(self, root: Path, *, need_train: bool) -> FolderSource | None:
        """Return a reader of the task's own folder layout; None if it has none."""
        ...

    def find_columns(self, columns: Columns) -> tuple[str, ...]:
        """Return the table's columns that hold the target; empty if there are none."""
        ...

    def read_cells(self, columns: Columns, names: Sequence[str]) -> list[str]:
        """Return the target of each row as one text."""
        ...


@dataclass(frozen=True)
class PlainReader:
    """Reads columns with fixed names; several columns are joined as a JSON list."""

    columns: tuple[str, ...] = ("label",)
    in_folders: bool = True

    def open_folder(self, root: Path, *, need_train: bool) -> None:
        """Return None: folders are classes."""

    def find_columns(self, columns: Columns) -> tuple[str, ...]:
        """Return one column for each name; none if one is missing."""
        found = [columns.find(role) for role in self.columns]
        return tuple(names[0] for names in found) if all(len(one) == 1 for one in found) else ()

    def read_cells(self, columns: Columns, names: Sequence[str]) -> list[str]:
        """Return the text of the only column, or a JSON list of all columns."""
        return columns.join(names)


class TargetRules(TargetReader, Protocol):
    """Everything that the index needs to know about targets; every task implements it."""

    name: ClassVar[str]
    discrete: ClassVar[bool]
    """Whether each image has one class; if so, pictures of two classes are never the same."""

    def balance(self, texts: Sequence[str]) -> Sequence[tuple[str, ...]]:
        """Return, for each target, the labels whose shares the splits keep."""
        ...

    def check_texts(self, root: Path, texts: Sequence[str]) -> None:
        """Refuse unreadable targets."""
        ...

    def settle(
        self, root: Path, texts: Sequence[str], paths: Sequence[str], sizes: np.ndarray
    ) -> Settled:
        """Return the targets of usable images as the manifest stores them."""
        ...

    def correct(self, old: str, new: str) -> str:
        """Return ``new``, with which a person replaced the target ``old``, as a target."""
        ...

    def read_names(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return all names in the targets, such as classes."""
        ...

    def strata(self, texts: Sequence[str]) -> list[str]:
        """Return the stratum of each target."""
        ...

    def check(self, root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
        """Refuse targets, of usable and of all listed images, from which nothing can be learned."""
        ...

    def warn(self, texts: Sequence[str]) -> list[str]:
        """Return warnings about unusual targets."""
        ...

    def check_splits(self, root: Path, strata: Sequence[str], splits: Sequence[str]) -> list[str]:
        """Return warnings about the distribution of the strata over the splits."""
        ...
