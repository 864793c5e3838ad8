"""A model registry in memory, with its bundles in one folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rootstock.errors import NoModelError
from rootstock.ports.registry import Record, RegistryEntry


class FolderRegistry:
    """Implements `rootstock.ports.registry.ModelRegistry`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: dict[tuple[str, str], RegistryEntry] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.descriptions: dict[tuple[str, str], str] = {}
        self.logs: dict[str, list[Record]] = {}
        self._turn = threading.Lock()

    def register(
        self, name: str, bundle: Path, *, run_id: str, tags: Mapping[str, str], description: str
    ) -> RegistryEntry:
        version = str(sum(known == name for known, _ in self.entries) + 1)
        shutil.copytree(bundle, self.root / name / version)
        entry = RegistryEntry(name, version, run_id=run_id, tags=dict(tags))
        self.entries[name, version] = entry
        self.descriptions[name, version] = description
        return entry

    def find(self, name: str, *, alias: str = "", version: str = "") -> RegistryEntry:
        version = version or self.aliases.get((name, alias), "")
        if (name, version) not in self.entries:
            raise NoModelError(f"no model {name!r} with alias {alias!r} or version {version!r}")
        return self._with_aliases(self.entries[name, version])

    def versions(self, name: str) -> list[RegistryEntry]:
        return [self._with_aliases(e) for (known, _), e in self.entries.items() if known == name]

    def holds_files(self, entry: RegistryEntry) -> bool:
        return (self.root / entry.name / entry.version).is_dir()

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self.aliases[name, alias] = version

    def drop_alias(self, name: str, alias: str) -> None:
        self.aliases.pop((name, alias), None)

    def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        entry = self.entries[name, version]
        self.entries[name, version] = RegistryEntry(
            name, version, entry.run_id, tags={**entry.tags, **tags}
        )

    def describe(self, name: str, version: str, description: str) -> None:
        self.descriptions[name, version] = description

    def append_record(self, name: str, version: str, facts: Mapping[str, str]) -> int:
        with self._turn:
            log = self.logs.setdefault(name, [])
            log.append(Record(len(log) + 1, version, time.time(), dict(facts)))
            return len(log)

    def records(self, name: str) -> list[Record]:
        return list(self.logs.get(name, ()))

    def note_on_record(self, name: str, number: int, facts: Mapping[str, str]) -> None:
        with self._turn:
            old = self.logs[name][number - 1]
            self.logs[name][number - 1] = replace(old, facts={**facts, **old.facts})

    def download(self, entry: RegistryEntry, target: Path) -> Path:
        if not self.holds_files(entry):
            raise NoModelError(f"version {entry.version} has no files any more")
        shutil.copytree(self.root / entry.name / entry.version, target, dirs_exist_ok=True)
        return target

    def _with_aliases(self, entry: RegistryEntry) -> RegistryEntry:
        names = tuple(
            alias
            for (name, alias), version in self.aliases.items()
            if (name, version) == (entry.name, entry.version)
        )
        return RegistryEntry(entry.name, entry.version, entry.run_id, names, entry.tags)


def alter_bundle(directory: Path, note: str = "another") -> None:
    """Make another model from a model directory: the same answers, another lineage."""
    facts = json.loads((directory / "bundle.json").read_text())
    facts["lineage"]["note"] = note
    (directory / "bundle.json").write_text(json.dumps(facts))
    sums = json.loads((directory / "checksums.json").read_text())
    digest = hashlib.sha256((directory / "bundle.json").read_bytes()).hexdigest()
    (directory / "checksums.json").write_text(json.dumps(sums | {"bundle.json": digest}))
