"""The labels of a project as people have corrected them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rootstock.data.adoption import adopt_image
from rootstock.data.label_corrections import (
    ORIGINAL,
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
from rootstock.errors import DataError
from rootstock.features.loading import read_indexed
from rootstock.studio.image_table import read_labels
from rootstock.studio.project import Stamp, StudioProject, stamp_of
from rootstock.tasks.annotation import Annotation
from rootstock.tasks.task import Task
from rootstock.workflow.corrections import ProjectLabels

MAX_SHOWN_CHARACTERS = 500
"""Longest label sent with each image."""


@dataclass(frozen=True)
class Labels:
    """The current labels, read at one point in time."""

    source: ProjectLabels

    @cached_property
    def corrected(self) -> dict[str, Correction]:
        """The current correction, by SHA-256 of the image; none if it was undone."""
        return current(self.source.corrections)

    @cached_property
    def disputed(self) -> dict[str, Conflict]:
        """The unsettled conflicts between two people."""
        return {one.later.sha256: one for one in conflicts(self.source.corrections)}

    @property
    def task(self) -> Task:
        return self.source.task

    def describe(self, row: ImageRow) -> dict[str, Any]:
        """Return the current label of an image, and where it comes from."""
        text = self.source.in_force(row) if row.sha256 else row.target
        facts: dict[str, Any] = {"label": caption(self.task, text)}
        if text in ("", REMOVE) or (len(text) <= MAX_SHOWN_CHARACTERS and self.task.corrects_texts):
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
        """Return the current label of an image, as the manifest writes it."""
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
        self._lock, self._adopting = threading.Lock(), threading.Lock()
        self._labels: tuple[tuple[Stamp, Stamp], Labels] | None = None

    @property
    def stamp(self) -> Stamp:
        """A value that changes whenever the corrections change."""
        return stamp_of(locate_corrections(self._project.data))

    def read(self) -> Labels:
        """Return the current labels.

        Raises:
            ArtifactError: There is no manifest.
            DataError: The corrections cannot be read.
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
        """Add a correction and return the resulting label.

        ``seen`` is the label that the person saw. If another person has changed it since, both
        rows are kept, and the conflict is shown.
        Raises:
            DataError: This is not a valid label of the task; nothing is written.
            ArtifactError: The file cannot be written; nothing is written.
        """
        labels = self.read()
        task, source = labels.task, labels.source
        text = new if isinstance(new, str) else task.read_annotation(new)
        if text not in (ORIGINAL, REMOVE):
            text = task.correct(source.original(row), text)
        correction = Correction(row.sha256, seen, text, who, stamp_time(), why)
        append_corrections(source.path, [correction])
        return self.read().describe(row)

    def adopt(
        self, row: ImageRow, root: Path, new: str | Annotation, *, seen: str, who: str, why: str
    ) -> dict[str, Any]:
        """Copy an image of another folder into the data with its label, and return that.

        Its origin is noted as the reason, after ``why``. If a person has done so before, ``new`` is
        a correction as in `write`.
        Raises:
            DataError: this is not a label of the task, or the image has changed or vanished.
            ImageError: it is not an image that can be used.
            ArtifactError: it cannot be written; nothing is written.
        """
        with self._adopting:
            labels, project = self.read(), self._project
            if row.sha256 in labels.corrected and new != ORIGINAL:
                return self.write(row, new, seen=seen, who=who, why=why)
            task = labels.task
            is_mark = new in (ORIGINAL, REMOVE)
            if is_mark or not task.corrects_texts:
                raise DataError(
                    "the image is not in the data"
                    if is_mark
                    else "images with masks cannot be added here",
                    hint="skip it, or put it and its mask next to the others yourself",
                )
            text = task.correct("", new if isinstance(new, str) else task.read_annotation(new))
            origin = f"from {root / row.path}"
            adopt_image(
                project.data,
                project.manifest.get().images,
                read_indexed(row, root),
                text,
                who=who,
                why=f"{why}; {origin}" if why else origin,
            )
            return self.read().describe(row)


def caption(task: Task, text: str) -> str:
    """Return a target for people."""
    if text in ("", ORIGINAL, REMOVE):
        return {"": "", ORIGINAL: "the original label", REMOVE: "removed"}[text]
    try:
        return ", ".join(read_labels(task, text)) or task.caption(text)
    except (DataError, ValueError):
        return text


def read_annotation(tree: Mapping[str, Any]) -> Annotation:
    """Return a label from its parts as the page sends them.

    Raises:
        DataError: A part has the wrong form.
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
            f"invalid label: {error}", hint="reload the page; nothing was written"
        ) from None
