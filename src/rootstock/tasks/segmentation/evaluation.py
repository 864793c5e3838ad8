"""The evaluation of a segmenter as a report: text, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from rootstock.metrics import draw_counts, percentile_interval
from rootstock.system.escape import escape_markdown, markdown_table
from rootstock.tasks.metric_words import list_metrics
from rootstock.tasks.segmentation.grids import classes_on_points
from rootstock.tasks.segmentation.masks import POINTS
from rootstock.tasks.segmentation.measures import Counts, mean_overlap
from rootstock.tasks.segmentation.plots import OverlaidImage, plot_class_overlaps, plot_overlays
from rootstock.tasks.single_label.plots import plot_confusion
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import PICTURE_FOLDER, Evidence, Picture, Report

MAX_OVERLAYS = 11
FEW_IMAGES = 200
"""With fewer test images the report points to the interval instead of the number."""
WEAKEST_CLASSES = 5
"""Classes listed in the card."""


@dataclass(frozen=True)
class Segmented:
    """Decisions [N,K,G,G] on N test images, their targets and paths."""

    decisions: np.ndarray
    targets: Targets
    paths: Sequence[str] = ()

    @classmethod
    def of(cls, evidence: Evidence) -> Segmented:
        """Return the images of ``evidence``."""
        return cls(evidence.decisions, evidence.targets, evidence.paths)

    @cached_property
    def counts(self) -> Counts:
        """Points of each image and class."""
        return Counts.of(self.decisions, self.targets.values)

    @cached_property
    def overlaps(self) -> np.ndarray:
        """The IoU of each class, [K]; NaN if no point is true or predicted for it."""
        return self.counts.overlaps()[0]

    @cached_property
    def draws(self) -> np.ndarray:
        """How often each image is in each draw of whole groups, [R,N]."""
        width = len(self.targets.names)
        return draw_counts(self.targets.groups, len(self.targets), width=width)

    @cached_property
    def drawn_overlaps(self) -> np.ndarray:
        """The IoU of each class in each draw, [R,K]."""
        return self.counts.overlaps(self.draws)

    @property
    def accuracies(self) -> np.ndarray:
        """The share of right points of each image, float64[N]; NaN if all are ignored."""
        total = self.counts.true.sum(axis=1)
        return np.where(total, self.counts.both.sum(axis=1) / np.maximum(total, 1), np.nan)

    def metrics(self) -> dict[str, float]:
        """Return the test metrics, the headline first."""
        low, high = percentile_interval(mean_overlap(self.drawn_overlaps))
        pixel_low, pixel_high = percentile_interval(self.counts.accuracies(self.draws))
        confusion = self.counts.confusion
        true = confusion.sum(axis=1)
        recalls = np.diagonal(confusion)[true > 0] / true[true > 0]
        return {
            "mean_iou": float(mean_overlap(self.overlaps[None])[0]),
            "mean_iou_low": low,
            "mean_iou_high": high,
            "pixel_accuracy": float(self.counts.accuracies()[0]),
            "pixel_accuracy_low": pixel_low,
            "pixel_accuracy_high": pixel_high,
            "mean_class_accuracy": float(recalls.mean()) if len(recalls) else 0.0,
        }

    def class_rows(self) -> list[Sequence[object]]:
        """Return the rows of per_class.csv, its header first."""
        rows: list[Sequence[object]] = [
            ("class", "iou", "low", "high", "recall", "precision", "share_of_area", "images")
        ]
        confusion = self.counts.confusion
        true, said, both = confusion.sum(axis=1), confusion.sum(axis=0), np.diagonal(confusion)
        for k, name in enumerate(self.targets.names):
            drawn = self.drawn_overlaps[:, k]
            drawn = drawn[np.isfinite(drawn)]
            cells: tuple[object, ...] = ("", "", "")
            if len(drawn) and np.isfinite(self.overlaps[k]):
                low, high = percentile_interval(drawn)
                cells = tuple(round(float(one), 6) for one in (self.overlaps[k], low, high))
            rows.append(
                (
                    name,
                    *cells,
                    round(float(both[k] / true[k]), 6) if true[k] else "",
                    round(float(both[k] / said[k]), 6) if said[k] else "",
                    round(float(true[k] / max(1, true.sum())), 6),
                    int((self.counts.true[:, k] > 0).sum()),
                )
            )
        return rows

    def prediction_rows(self) -> list[Sequence[object]]:
        """Return the rows of predictions.csv, its header first."""
        names = self.targets.names
        rows: list[Sequence[object]] = [
            (
                "path",
                "right",
                *(f"actual share of {name}" for name in names),
                *(f"predicted share of {name}" for name in names),
            )
        ]
        total = np.maximum(self.counts.true.sum(axis=1, keepdims=True), 1)
        shares = np.concatenate([self.counts.true / total, self.counts.said / total], axis=1)
        for path, right, of_image in zip(self.paths, self.accuracies, shares, strict=True):
            rows.append(
                (
                    path,
                    "" if np.isnan(right) else f"{right:.6f}",
                    *(f"{share:.6f}" for share in of_image),
                )
            )
        return rows

    def shown(self) -> list[OverlaidImage]:
        """Return the images with the most wrong points, the worst first."""
        order = [i for i in np.argsort(self.accuracies, kind="stable") if self.counts.true[i].any()]
        chosen = order[:MAX_OVERLAYS]
        predicted = classes_on_points(self.decisions[chosen])
        return [
            OverlaidImage(self.paths[i], self.targets.values[i], said, float(self.accuracies[i]))
            for i, said in zip(chosen, predicted, strict=True)
        ]


def make_report(evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
    """Return evaluation.md, per_class.csv and three pictures."""
    images = Segmented.of(evidence)
    names, confusion = images.targets.names, images.counts.confusion
    per_ten_thousand = np.round(10_000 * confusion / max(1, confusion.sum())).astype(np.int64)
    rows = images.class_rows()
    pictures = [
        Picture("overlays.png", partial(plot_overlays, images.shown(), names, root=root)),
        Picture("classes.png", partial(plot_class_overlaps, rows[1:])),
        Picture("confusion.png", partial(plot_confusion, per_ten_thousand, names)),
    ]
    return Report(_render(metrics, rows), rows, pictures)


def _render(values: Mapping[str, float], rows: Sequence[Sequence[object]]) -> str:
    low, high = values["mean_iou_low"], values["mean_iou_high"]
    lines = [
        "# Evaluation on the test split",
        "",
        f"**The mean IoU over the classes is {values['mean_iou']:.3f}** (95 % interval {low:.3f} "
        f"to {high:.3f}) on {values['n_test']} test images, and {values['pixel_accuracy']:.1%} of "
        "their pixels have the right class.",
        "",
        "IoU is the area of a class that is both true and predicted, divided by the area that is "
        "either, over all test images. It is measured on "
        f"{POINTS} x {POINTS} evenly spaced points of each image; ignored areas of masks do "
        "not count. The intervals are a bootstrap over images.",
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
        ("class", "IoU", "95 % interval", "recall", "precision", "share of area", "images"),
        [
            (
                name,
                _number(iou),
                f"{_number(low)} to {_number(high)}" if iou != "" else "",
                _number(recall),
                _number(precision),
                f"{share:.1%}",
                count,
            )
            for name, iou, low, high, recall, precision, share, count in rows[1:]
        ],
    )
    folder = PICTURE_FOLDER
    return "\n".join(
        [
            *lines,
            "",
            f"![IoU of the classes]({folder}/classes.png)",
            "",
            "Confusion of classes, in ten-thousandths of all points:",
            "",
            f"![Confusion matrix]({folder}/confusion.png)",
            "",
            "## Images",
            "",
            f"![Worst images]({folder}/overlays.png)",
            "",
        ]
    )


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else ""


def describe_quality(metrics: Mapping[str, float], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines for the model card; ``rows`` are those of per_class.csv."""
    known = sorted((row for row in rows if row["iou"]), key=lambda row: float(row["iou"]))
    return [
        f"- **Mean IoU {metrics['mean_iou']:.3f}** on {metrics['n_test']} test images (95 % "
        f"interval {metrics['mean_iou_low']:.3f} to {metrics['mean_iou_high']:.3f}, bootstrap over "
        "images).",
        f"- {metrics['pixel_accuracy']:.1%} of the pixels have the right class.",
        "",
        "Weakest classes:",
        "",
        *markdown_table(
            ("class", "IoU", "share of area", "test images"),
            [
                (
                    escape_markdown(row["class"]),
                    f"{float(row['iou']):.3f}",
                    f"{float(row['share_of_area']):.1%}",
                    row["images"],
                )
                for row in known[:WEAKEST_CLASSES]
            ],
        ),
    ]
