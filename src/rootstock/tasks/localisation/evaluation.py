"""The evaluation of a localiser as a report: text, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from rootstock.system.escape import escape_markdown, markdown_table
from rootstock.tasks.localisation import measures
from rootstock.tasks.localisation.boxes import overlap
from rootstock.tasks.localisation.plots import BoxedImage, plot_boxes, plot_overlaps
from rootstock.tasks.metric_words import list_metrics
from rootstock.tasks.single_label.measures import confusion_matrix
from rootstock.tasks.single_label.plots import plot_confusion
from rootstock.tasks.task import PICTURE_FOLDER, Evidence, Picture, Report

MAX_SHOWN = 24
FEW_IMAGES = 200
"""With fewer test images the report points to the interval instead of the number."""
WEAKEST_CLASSES = 5
"""Classes listed in the card."""


@dataclass(frozen=True)
class Localised:
    """Decisions [N,K+4] on N test images, their values [N,5], classes and paths."""

    decisions: np.ndarray
    values: np.ndarray
    classes: Sequence[str]
    paths: Sequence[str]

    @classmethod
    def of(cls, evidence: Evidence) -> Localised:
        """Return the images of ``evidence``."""
        targets = evidence.targets
        return cls(evidence.decisions, targets.values, targets.names, evidence.paths)

    @cached_property
    def labels(self) -> np.ndarray:
        """Actual class numbers int64[N]."""
        return self.values[:, 0].astype(np.int64)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Class numbers int64[N] of the most probable classes."""
        return self.decisions[:, :-4].argmax(axis=1)

    @cached_property
    def overlaps(self) -> np.ndarray:
        """Intersection over union float64[N] of both boxes."""
        return overlap(self.decisions[:, -4:], self.values[:, 1:])

    def worst(self) -> list[BoxedImage]:
        """Return the images with the smallest overlap, the smallest first."""
        order = np.argsort(self.overlaps, kind="stable")[:MAX_SHOWN]
        return [
            BoxedImage(
                self.paths[i],
                tuple(self.values[i, 1:].tolist()),
                tuple(self.decisions[i, -4:].tolist()),
                self.classes[self.labels[i]],
                self.classes[self.predicted[i]],
                float(self.overlaps[i]),
            )
            for i in order
        ]

    def prediction_rows(self) -> list[Sequence[object]]:
        """Return the rows of predictions.csv, its header first; boxes in shares of the sides."""
        sides = ("left", "top", "right", "bottom")
        header = ("path", "actual", "predicted", "probability", "iou")
        rows: list[Sequence[object]] = [
            (*header, *(f"actual_{side}" for side in sides), *(f"predicted_{s}" for s in sides))
        ]
        for i, path in enumerate(self.paths):
            both = (*self.values[i, 1:], *self.decisions[i, -4:])
            rows.append(
                (
                    path,
                    self.classes[self.labels[i]],
                    self.classes[self.predicted[i]],
                    f"{self.decisions[i, :-4].max():.6f}",
                    f"{self.overlaps[i]:.6f}",
                    *(f"{share:.6f}" for share in both),
                )
            )
        return rows

    def class_rows(self) -> list[Sequence[object]]:
        """Return the rows of per_class.csv, its header first."""
        right = measures.hits(self.decisions, self.values)
        rows: list[Sequence[object]] = [("class", "right", "class_right", "mean_iou", "images")]
        for number, name in enumerate(self.classes):
            of_class = self.labels == number
            count = int(of_class.sum())
            shares = [
                round(float(scores[of_class].mean()), 6) if count else 0.0
                for scores in (right, self.predicted == self.labels, self.overlaps)
            ]
            rows.append((name, *shares, count))
        return rows


def make_report(evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
    """Return evaluation.md, per_class.csv and three pictures."""
    images = Localised.of(evidence)
    confusion = confusion_matrix(images.predicted, images.labels, len(images.classes))
    pictures = [
        Picture("worst_boxes.png", partial(plot_boxes, images.worst(), root=root)),
        Picture("overlaps.png", partial(plot_overlaps, images.overlaps)),
        Picture("confusion.png", partial(plot_confusion, confusion, images.classes)),
    ]
    return Report(_render(images, metrics), images.class_rows(), pictures)


def _render(images: Localised, values: Mapping[str, float]) -> str:
    low, high = values["localisation_accuracy_low"], values["localisation_accuracy_high"]
    lines = [
        "# Evaluation on the test split",
        "",
        f"**{values['localisation_accuracy']:.1%} of {values['n_test']} test images have the right "
        f"class and a box that overlaps the true one by half or more** (95 % interval {low:.1%} to "
        f"{high:.1%}).",
        "",
    ]
    if values["n_test"] < FEW_IMAGES:
        lines += [
            f"{values['n_test']} test images are few: trust the interval, not the single number.",
            "",
        ]
    lines += markdown_table(
        ("measure", "value"),
        list_metrics(values),
    )
    lines += ["", "## Classes", ""]
    lines += markdown_table(
        ("class", "class and box right", "class right", "mean IoU", "images"),
        [
            (name, f"{right:.3f}", f"{class_right:.3f}", f"{iou:.3f}", count)
            for name, right, class_right, iou, count in images.class_rows()[1:]
        ],
    )
    return "\n".join(
        [
            *lines,
            "",
            f"![Confusion matrix]({PICTURE_FOLDER}/confusion.png)",
            "",
            "## Boxes",
            "",
            "IoU is the common area of both boxes divided by the area that they cover together.",
            "",
            f"![Overlap of the boxes]({PICTURE_FOLDER}/overlaps.png)",
            "",
            f"![Worst boxes]({PICTURE_FOLDER}/worst_boxes.png)",
            "",
        ]
    )


def describe_quality(metrics: Mapping[str, float], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines for the model card; ``rows`` are those of per_class.csv."""
    weakest = sorted(
        (row for row in rows if int(row["images"])),
        key=lambda row: (float(row["right"]), row["class"]),
    )[:WEAKEST_CLASSES]
    return [
        f"- **Class and box of {metrics['localisation_accuracy']:.1%} of {metrics['n_test']} test "
        f"images are right** (95 % interval {metrics['localisation_accuracy_low']:.1%} to "
        f"{metrics['localisation_accuracy_high']:.1%}, Wilson); a box is right if its IoU with the "
        f"true one is at least {measures.HIT_OVERLAP:g}.",
        f"- The class of {metrics['accuracy']:.1%} is right; the mean IoU is "
        f"{metrics['mean_iou']:.3f}.",
        "",
        "Weakest classes:",
        "",
        *markdown_table(
            ("class", "class and box right", "mean IoU", "test images"),
            [
                (
                    escape_markdown(row["class"]),
                    f"{float(row['right']):.1%}",
                    f"{float(row['mean_iou']):.3f}",
                    row["images"],
                )
                for row in weakest
            ],
        ),
    ]
