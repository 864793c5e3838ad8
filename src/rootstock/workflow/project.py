"""A project at the head of a stage: settings and folders in, what every stage needs out.

What lies below the stages gets plain values: neither the settings nor the project travel on. Every
stage depends on what this module imports, so it imports little.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.layout import base_folder
from rootstock.data.manifest import Manifest


@dataclass(frozen=True)
class Project:
    """The settings and folders of a project; the manifest is read when it is first needed."""

    config: Config
    paths: Paths

    @cached_property
    def root(self) -> Path:
        """The folder that the manifest's paths are relative to."""
        return base_folder(self.paths.below(self.config.data.root))

    @cached_property
    def manifest(self) -> Manifest:
        """What the stage `index` wrote."""
        return Manifest.read(self.paths.manifest)

    @property
    def store(self) -> Path:
        """The folder of the feature store."""
        return self.paths.lasting(self.config.features.store)
