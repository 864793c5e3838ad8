"""The registry's models as the studio shows them: versions, metrics, cards, and the history."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootstock.errors import NoModelError
from rootstock.integrations.connect import connect_registry
from rootstock.model.bundle import CARD, read_bundle
from rootstock.ports.registry import ModelRegistry, RegistryEntry
from rootstock.registry.champion import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    find_alias,
    find_drift,
    promote,
    rollback,
)
from rootstock.registry.history import read_changes
from rootstock.registry.tags import CARD_TAG, REASON_TAG
from rootstock.studio.project import StudioProject
from rootstock.tasks import get_task

SHOWN_ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)


@dataclass(frozen=True)
class ModelFacts:
    """A registered model's description of itself."""

    metrics: dict[str, Any]
    strategy: str
    card: str


class Models:
    """Reads the registry on each request; facts about a version are fetched once."""

    def __init__(self, project: StudioProject) -> None:
        self._project = project
        self._lock = threading.Lock()
        self._facts: dict[tuple[str, str], ModelFacts] = {}

    @property
    def name(self) -> str:
        """The name of the model in the registry."""
        return self._project.config.registry.name

    def open(self) -> ModelRegistry:
        """Return the registry.

        Raises:
            NoModelError: Tracking is off.
            TrackingError: There is no registry yet, or it cannot be reached.
        """
        registry = connect_registry(self._project.config, self._project.paths, make=False)
        if registry is None:
            raise NoModelError(
                "tracking.enabled is false in params.yaml, so there is no registry",
                hint="set it to true, then run the stage `register`",
            )
        return registry

    def list(self) -> dict[str, Any]:
        """Return the versions, newest first, and the changes of the champion."""
        registry = self.open()
        changes = read_changes(registry.records(self.name))
        versions = sorted(registry.versions(self.name), key=lambda one: -int(one.version))
        return {
            "name": self.name,
            "moved": find_drift(registry, self.name, changes),
            "versions": [
                {
                    "version": one.version,
                    "aliases": list(one.aliases),
                    "gate": one.tags.get(REASON_TAG, ""),
                }
                for one in versions
            ],
            "changes": [
                {
                    "number": change.number,
                    "version": change.version,
                    "kind": change.kind,
                    "why": change.why,
                    "by": change.by,
                    "at": change.at,
                }
                for change in reversed(changes)
            ],
        }

    def compare(self) -> dict[str, Any]:
        """Return metrics and cards of the champion, its challenger, and the previous champion.

        An alias is None if no version has it, or if its files are gone.
        """
        registry = self.open()
        return {alias: self._describe(registry, alias) for alias in SHOWN_ALIASES}

    def _describe(self, registry: ModelRegistry, alias: str) -> dict[str, Any] | None:
        entry = find_alias(registry, self.name, alias)
        if entry is None or not registry.holds_files(entry):
            return None
        facts = self._fetch(registry, entry)
        return {
            "version": entry.version,
            "aliases": list(entry.aliases),
            "metrics": facts.metrics,
            "strategy": facts.strategy,
            "card": facts.card,
        }

    def promote(self, version: str, *, expect: str, why: str, by: str) -> str:
        """Make a version the champion and return it; ``expect`` is the current champion."""
        entry = promote(self.open(), self.name, version, expect=expect, why=why, by=by)
        return entry.version

    def rollback(self, *, why: str, by: str) -> str:
        """Make the previous champion the champion again and return it."""
        return rollback(self.open(), self.name, why=why, by=by).version

    def _fetch(self, registry: ModelRegistry, entry: RegistryEntry) -> ModelFacts:
        key = (entry.version, entry.tags.get(CARD_TAG, ""))
        with self._lock:
            if key not in self._facts:
                with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
                    bundle = read_bundle(registry.download(entry, Path(folder) / "model"))
                    card = bundle.directory / CARD
                    self._facts[key] = ModelFacts(
                        bundle.metrics,
                        bundle.strategy,
                        card.read_text(encoding="utf-8") if card.is_file() else "",
                    )
            return self._facts[key]

    def rank_metrics(self, task: str) -> dict[str, Any]:
        """Return the metrics that the gate compares, and which of them are errors."""
        known = get_task(task)
        return {"first": list(known.gate_metrics), "lower": sorted(known.lower_is_better)}
