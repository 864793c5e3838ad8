"""What the index asks of the kind of target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol


class TargetRules(Protocol):
    """What the index asks of the kind of target; every task answers it."""

    name: ClassVar[str]

    def check_texts(self, root: Path, texts: Sequence[str]) -> None:
        """Refuse targets that cannot be read."""
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
