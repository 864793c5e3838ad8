"""The labels of a project as people have corrected them, and the queue of what to look at."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rootstock.data.label_corrections import (
    REMOVE,
    Conflict,
    Correction,
    append_corrections,
    conflicts,
    current,
    locate_corrections,
    stamp_time,
)
from rootstock.data.manifest import ImageRow
from rootstock.errors import ArtifactError, DataError
from rootstock.evaluate.decisions import read_decisions
from rootstock.review.queue import QueueRow, list_disagreements, list_suspects, merge_queue
from rootstock.studio.image_table import read_labels
from rootstock.studio.project import Stamp, StudioProject, stamp_of
from rootstock.tasks.annotation import Annotation
from rootstock.tasks.dataset import Dataset
from rootstock.tasks.task import Task
from rootstock.workflow.corrections import ProjectLabels

MAX_QUEUE_IMAGES = 500
MAX_TEXT_CHARACTERS = 500
"""A longer label, such as a mask, is not sent with each image."""


@dataclass(frozen=True)
class Labels:
    """The labels in force, read at one time."""

    source: ProjectLabels

    @cached_property
    def corrected(self) -> dict[str, Correction]:
        """The correction in force, by the SHA-256 of the image."""
        return current(self.source.corrections)

    @cached_property
    def disputed(self) -> dict[str, Conflict]:
        """The conflicts between two people that nobody has settled."""
        return {one.later.sha256: one for one in conflicts(self.source.corrections)}

    @property
    def task(self) -> Task:
        return self.source.task

    def describe(self, row: ImageRow) -> dict[str, Any]:
        """Return the label of an image in force, and how it came about."""
        text = self.source.in_force(row) if row.sha256 else row.target
        facts: dict[str, Any] = {"label": caption(self.task, text)}
        if len(text) <= MAX_TEXT_CHARACTERS:
            facts["text"] = text
        if correction := self.corrected.get(row.sha256):
            facts["correction"] = self._describe(correction)
        if conflict := self.disputed.get(row.sha256):
            facts["conflict"] = [self._describe(one) for one in conflict]
        return facts

    def _describe(self, correction: Correction) -> dict[str, Any]:
        names = {key: caption(self.task, getattr(correction, key)) for key in ("old", "new")}
        return asdict(correction) | {f"{key}_label": name for key, name in names.items()}

    def text_of(self, row: ImageRow) -> str:
        """Return the label of an image in force, as the manifest writes it."""
        return self.source.in_force(row)

    def annotate(self, text: str) -> dict[str, Any] | None:
        """Return a label in parts, for the page; None if the image has none."""
        if text in ("", REMOVE):
            return None
        try:
            return asdict(self.task.annotate(text))
        except DataError:
            return None


class LabelDesk:
    """Reads and writes corrections; each file is read again when it has changed."""

    def __init__(self, project: StudioProject) -> None:
        self._project = project
        self._lock = threading.Lock()
        self._labels: tuple[tuple[Stamp, Stamp], Labels] | None = None
        self._disagreements: tuple[tuple[Stamp, Stamp], list[Any]] | None = None

    @property
    def stamp(self) -> Stamp:
        """What changes with the corrections."""
        return stamp_of(locate_corrections(self._project.data))

    def read(self) -> Labels:
        """Return the labels in force.

        Raises:
            ArtifactError: there is no manifest.
            DataError: the corrections cannot be read.
        """
        project = self._project
        with self._lock:
            stamps = (stamp_of(project.manifest.path), self.stamp)
            if self._labels is None or self._labels[0] != stamps:
                source = ProjectLabels(project.data, project.manifest.get(), project.corrections())
                self._labels = (stamps, Labels(source))
            return self._labels[1]

    def write(
        self, row: ImageRow, new: str | Annotation, *, seen: str, who: str, why: str
    ) -> dict[str, Any]:
        """Add a correction and return the label in force.

        ``seen`` is the label that the person saw: if another person has changed it since, both
        rows are kept, and the conflict is shown.
        Raises:
            DataError: this is not a label of the task; nothing is written.
            ArtifactError: the file cannot be written; nothing is written.
        """
        labels = self.read()
        task, source = labels.task, labels.source
        text = new if isinstance(new, str) else task.read_annotation(new)
        if text != REMOVE:
            text = task.correct(source.original(row), text)
        correction = Correction(row.sha256, seen, text, who, stamp_time(), why)
        append_corrections(source.path, [correction])
        return self.read().describe(row)

    def list_queue(self, rows: Sequence[ImageRow]) -> list[QueueRow]:
        """Return the images that most need a look, without those that a person has decided on."""
        decided = self.read().corrected
        suspects: list[Any] = []
        with contextlib.suppress(ArtifactError):
            suspects = list_suspects(self._project.review.get().suspects, rows)
        merged = merge_queue(suspects, self._list_disagreements())
        return [row for row in merged if row.sha256 not in decided][:MAX_QUEUE_IMAGES]

    def _list_disagreements(self) -> list[Any]:
        paths = self._project.paths
        stamps = (stamp_of(paths.manifest), stamp_of(paths.decisions))
        with self._lock:
            if self._disagreements is None or self._disagreements[0] != stamps:
                self._disagreements = (stamps, self._compare_decisions())
            return self._disagreements[1]

    def _compare_decisions(self) -> list[Any]:
        manifest = self._project.manifest.get()
        rows = manifest.rows("test")
        dataset = Dataset.of(manifest)
        try:
            decisions = read_decisions(self._project.paths.decisions, rows)
        except ArtifactError:
            return []  # the model was never evaluated, or on other images
        if not np.isfinite(decisions).all():
            return []
        targets = dataset.targets("test")
        return list_disagreements(dataset.task, dataset.names, rows, decisions, targets)


def caption(task: Task, text: str) -> str:
    """Return a target for people."""
    if text in ("", REMOVE):
        return {"": "", REMOVE: "removed"}[text]
    try:
        return ", ".join(read_labels(task, text)) or task.caption(text)
    except (DataError, ValueError):
        return text


def read_annotation(tree: Mapping[str, Any]) -> Annotation:
    """Return a label in parts as the page sends it.

    Raises:
        DataError: a part has another form.
    """
    try:
        box = tree.get("box")
        left, top, right, bottom = map(float, box) if box else (0.0, 0.0, 0.0, 0.0)
        return Annotation(
            tuple(str(label) for label in tree.get("labels") or ()),
            (left, top, right, bottom) if box else None,
            {str(name): float(value) for name, value in (tree.get("numbers") or {}).items()},
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"this is not a label: {error}", hint="load the page again; nothing was written"
        ) from None
