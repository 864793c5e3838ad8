"""Find files on disk, whatever the spelling in a table."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePosixPath

from rootstock.data.entry import clean_label, fold_label


class FileNames:
    """Names on disk below ``base``; each folder is listed once, on first use."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._exact: dict[str, frozenset[str]] = {}
        self._respelt: dict[str, tuple[dict[str, str], dict[str, str]]] = {}

    def find(self, path: str) -> str | None:
        """Return ``path`` as spelt on disk, or None.

        Letters may be composed differently; if no such name matches, case is ignored.
        """
        folder, _, name = path.rpartition("/")
        if name in self._list(folder):
            return path
        here = ""
        for part in path.split("/"):
            names = self._list(here)
            spelt = part if part in names else self._respell(here, part)
            if not spelt:
                return None
            here = f"{here}/{spelt}" if here else spelt
        return here

    def find_similar(self, path: str) -> str:
        """Return a file of the same name in another folder, or with a suffix; "" if none."""
        name = PurePosixPath(path).name
        folders = [str(PurePosixPath(path).parent), "", *sorted(self._list(""))]
        for folder in folders:
            for other in sorted(self._list("" if folder == "." else folder)):
                if other == name or other.rpartition(".")[0] == name:
                    return f"{folder}/{other}" if folder not in ("", ".") else other
        return ""

    def _list(self, folder: str) -> frozenset[str]:
        if folder not in self._exact:
            try:
                self._exact[folder] = frozenset(os.listdir(self.base / folder))
            except (OSError, ValueError):
                self._exact[folder] = frozenset()
        return self._exact[folder]

    def _respell(self, folder: str, name: str) -> str:
        """Return the name on disk that is another spelling of ``name``; "" if none."""
        if folder not in self._respelt:
            names = sorted(self._list(folder))
            cases = Counter(map(fold_label, names))
            self._respelt[folder] = (
                {clean_label(name): name for name in names},
                {fold_label(name): name for name in names if cases[fold_label(name)] == 1},
            )
        composed, without_case = self._respelt[folder]
        return composed.get(clean_label(name)) or without_case.get(fold_label(name), "")
