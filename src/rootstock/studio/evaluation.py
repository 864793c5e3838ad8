"""The evaluation of the project's model, per image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.data.manifest import ImageRow, Manifest
from rootstock.evaluate.decisions import read_decisions
from rootstock.evaluate.slices import SliceSearch, find_worse_slices
from rootstock.studio.project import FileView, Stamp, StudioProject, stamp_of
from rootstock.tasks.dataset import Dataset
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Task

MAX_CONFUSIONS = 400


@dataclass(frozen=True)
class Evaluation:
    """The model's answers on the N test images.

    ``said`` is empty if the task's answers are not simply right or wrong.
    ``certainty`` float64[N] is from 0 to 1, or None if the task has no certainty.
    """

    task: Task
    rows: Sequence[ImageRow]
    said: list[str]
    errors: np.ndarray | None
    certainty: np.ndarray | None

    @property
    def wrong(self) -> np.ndarray:
        """bool[N]: images whose decision is wrong; none if that has no meaning."""
        pairs = zip(self.rows, self.said, strict=False)
        return np.array([row.target != said for row, said in pairs], bool)

    def confusions(self) -> list[dict[str, Any]]:
        """Return how often each label was confused with each other one, most frequent first."""
        pairs = zip(self.rows, self.said, strict=False)
        counts = Counter((row.target, said) for row, said in pairs)
        return [
            {"target": target, "said": said, "count": count}
            for (target, said), count in counts.most_common(MAX_CONFUSIONS)
        ]

    def answers(self) -> dict[str, Any]:
        """Return label, answer, and certainty of each image, as indices into the names."""
        names = sorted({row.target for row in self.rows} | set(self.said))
        numbers = {name: number for number, name in enumerate(names)}
        certainty = self.certainty if self.certainty is not None else np.zeros(0)
        return {
            "names": names,
            "targets": [numbers[row.target] for row in self.rows] if self.said else [],
            "said": [numbers[said] for said in self.said],
            "certainty": np.round(certainty, 4).tolist(),
        }

    def worse_slices(self) -> SliceSearch | None:
        """Return the groups of test images on which the model is worse; None without metadata."""
        if self.errors is None or not any(row.metadata for row in self.rows):
            return None
        groups = np.array([row.group for row in self.rows], np.int64)
        return find_worse_slices(self.errors, [row.facts for row in self.rows], groups)


class Evaluations:
    """The current evaluation, read again when it changes."""

    def __init__(self, project: StudioProject) -> None:
        self._project = project
        self._view: FileView[Evaluation] = FileView(
            project.paths.decisions, lambda _: self._read(project.manifest.get())
        )
        self._manifest: Stamp = ()

    def get(self) -> Evaluation:
        """Return the evaluation.

        Raises:
            ArtifactError: The model was not evaluated on the current test images.
        """
        stamp = stamp_of(self._project.manifest.path)
        if stamp != self._manifest:
            self._view.forget()
            self._manifest = stamp
        return self._view.get()

    def _read(self, manifest: Manifest) -> Evaluation:
        dataset = Dataset.of(manifest)
        task, rows = dataset.task, manifest.rows("test")
        decisions = read_decisions(self._project.paths.decisions, rows)
        targets: Targets = dataset.targets("test")
        unsure = task.uncertainty(decisions)
        return Evaluation(
            task,
            rows,
            task.decided(decisions, dataset.names) if task.discrete else [],
            task.errors(decisions, targets),
            None if unsure is None else 1.0 - unsure,
        )
