"""A project for a stage: settings and folders in, common inputs of every stage out.

Modules below the stages get plain values, neither the settings nor the project. Every stage depends
on the imports of this module, so it imports little.
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
    """The settings and folders of a project; the manifest is read on first use."""

    config: Config
    paths: Paths

    @classmethod
    def holding(cls, manifest: Manifest, config: Config, paths: Paths) -> Project:
        """Return a project whose manifest is known, so that it is not read again."""
        project = cls(config, paths)
        project.__dict__["manifest"] = manifest
        return project

    @cached_property
    def root(self) -> Path:
        """The folder to which the paths in the manifest are relative."""
        return base_folder(self.paths.below(self.config.data.root))

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest from the stage `index`."""
        return Manifest.read(self.paths.manifest)

    @property
    def store(self) -> Path:
        """The folder of the feature store."""
        return self.paths.lasting(self.config.features.store)
