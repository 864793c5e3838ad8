"""A manifest together with its task: targets instead of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rootstock.data.manifest import ImageRow, Manifest
from rootstock.tasks import get_task
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Task


@dataclass(frozen=True)
class Dataset:
    """The images of ``manifest`` as ``task`` reads them."""

    manifest: Manifest
    task: Task

    @classmethod
    def of(cls, manifest: Manifest) -> Dataset:
        """Return the manifest with its own task."""
        return cls(manifest, get_task(manifest.task))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the model's outputs, from all usable images."""
        return self.task.read_names([row.target for row in self.manifest.rows()])

    def targets(self, split: str | None = None) -> Targets:
        """Return the targets of the usable images of one split, or of all."""
        return self.targets_of(self.manifest.rows(split))

    @cached_property
    def units(self) -> np.ndarray | None:
        """The units of the outputs, from the training images."""
        texts = [row.target for row in self.manifest.rows("train")]
        return self.task.measure_units(self.task.parse(texts, self.names))

    def targets_of(self, rows: Sequence[ImageRow]) -> Targets:
        """Return the targets of the given rows."""
        targets = read_targets(self.task, rows, self.names)
        return dataclasses.replace(targets, units=self.units)


def read_targets(task: Task, rows: Sequence[ImageRow], names: Sequence[str]) -> Targets:
    """Return the targets of rows for outputs ``names``, in units of these rows.

    Raises:
        DataError: a target has a name that is not among them.
    """
    values = task.parse([row.target for row in rows], names)
    _, strata = np.unique([row.stratum for row in rows], return_inverse=True)
    groups = np.array([row.group for row in rows], np.int64)
    return Targets(values, tuple(names), strata, groups, task.measure_units(values))
