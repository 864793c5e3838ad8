"""What the index asks of the kind of target."""

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
    """Targets as the manifest keeps them, and what the user should know of them."""

    texts: list[str]
    warnings: list[str]


class FolderSource(Protocol):
    """Lists the images of a folder with their targets; ``warnings`` grow while it does."""

    warnings: list[str]

    def read(self) -> list[Entry]:
        """Return the candidate images."""
        ...


class TargetReader(Protocol):
    """What reads the targets of a table or of folders; every task does."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that hold a target."""
        ...

    @property
    def in_folders(self) -> bool:
        """Whether the name of a class folder is a target."""
        ...

    def open_folder(self, root: Path, *, need_train: bool) -> FolderSource | None:
        """Return what reads a folder in the task's own way, if there is such a way."""
        ...

    def find_columns(self, columns: Columns) -> tuple[str, ...]:
        """Return the names of the table's columns that hold the target; none if it has none."""
        ...

    def read_cells(self, columns: Columns, names: Sequence[str]) -> list[str]:
        """Return the target of each row as one text."""
        ...


@dataclass(frozen=True)
class PlainReader:
    """Reads columns of fixed names; several are joined as a JSON list."""

    columns: tuple[str, ...] = ("label",)
    in_folders: bool = True

    def open_folder(self, root: Path, *, need_train: bool) -> None:
        """Return nothing: folders are classes."""

    def find_columns(self, columns: Columns) -> tuple[str, ...]:
        """Return one column for each name; none if one is missing."""
        found = [columns.find(role) for role in self.columns]
        return tuple(names[0] for names in found) if all(len(one) == 1 for one in found) else ()

    def read_cells(self, columns: Columns, names: Sequence[str]) -> list[str]:
        """Return the text of the only column, or those of all as a JSON list."""
        return columns.join(names)


class TargetRules(TargetReader, Protocol):
    """What the index asks of the kind of target; every task answers it."""

    name: ClassVar[str]
    discrete: ClassVar[bool]
    """Whether each image is of one class: pictures of two classes are not the same then."""

    def balance(self, texts: Sequence[str]) -> Sequence[tuple[str, ...]]:
        """Return what splits keep the shares of, for each target."""
        ...

    def check_texts(self, root: Path, texts: Sequence[str]) -> None:
        """Refuse targets that cannot be read."""
        ...

    def settle(
        self, root: Path, texts: Sequence[str], paths: Sequence[str], sizes: np.ndarray
    ) -> Settled:
        """Return the targets of usable images as the manifest keeps them."""
        ...

    def correct(self, old: str, new: str) -> str:
        """Return ``new``, given by a person in place of the target ``old``, as a target."""
        ...

    def read_names(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the names in the targets, such as classes."""
        ...

    def strata(self, texts: Sequence[str]) -> list[str]:
        """Return the stratum of each target."""
        ...

    def check(self, root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
        """Refuse targets of usable and of all listed images that cannot be learnt from."""
        ...

    def warn(self, texts: Sequence[str]) -> list[str]:
        """Return what looks odd about the targets."""
        ...

    def check_splits(self, root: Path, strata: Sequence[str], splits: Sequence[str]) -> list[str]:
        """Return warnings about how the strata fell into the splits."""
        ...
