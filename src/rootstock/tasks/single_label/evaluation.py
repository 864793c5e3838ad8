"""The evaluation of a classifier as a report: text, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from rootstock.metrics import effective_size, wilson_interval
from rootstock.plots.sheet import plot_mistakes
from rootstock.system.escape import markdown_table
from rootstock.tasks.metric_words import list_metrics
from rootstock.tasks.single_label import measures
from rootstock.tasks.single_label.plots import plot_confusion, plot_reliability
from rootstock.tasks.task import PICTURE_FOLDER, Evidence, Picture, Report

MAX_MISTAKES = 24
FEW_IMAGES = 200
"""With fewer test images the report points to the interval instead of the number."""


@dataclass(frozen=True)
class Classified:
    """Probabilities float32[N,K] of N test images, their class numbers int64[N] and paths."""

    probabilities: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    paths: Sequence[str]

    @classmethod
    def of(cls, evidence: Evidence) -> Classified:
        """Return the images of ``evidence``."""
        targets = evidence.targets
        return cls(evidence.decisions, targets.values, targets.names, evidence.paths)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Class numbers int64[N] of the most probable classes."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidences(self) -> np.ndarray:
        """Probabilities float32[N] of the most probable classes."""
        return self.probabilities.max(axis=1)

    @cached_property
    def confusion(self) -> np.ndarray:
        """int64[K,K]: rows are actual classes, columns predicted ones."""
        return measures.confusion_matrix(self.predicted, self.labels, len(self.classes))

    def mistakes(self) -> list[tuple[str, str, str, float]]:
        """Return (path, actual, predicted, probability) of mistakes, the most certain first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return [
            (
                self.paths[i],
                self.classes[self.labels[i]],
                self.classes[self.predicted[i]],
                float(self.confidences[i]),
            )
            for i in wrong[np.argsort(-self.confidences[wrong], kind="stable")]
        ]

    def prediction_rows(self) -> list[Sequence[object]]:
        """Return the rows of predictions.csv, its header first."""
        rows = zip(self.paths, self.labels, self.predicted, self.confidences, strict=True)
        return [
            ("path", "actual", "predicted", "probability"),
            *((path, self.classes[a], self.classes[b], f"{p:.6f}") for path, a, b, p in rows),
        ]

    def class_rows(self) -> list[Sequence[object]]:
        """Return the rows of per_class.csv, its header first."""
        scores = measures.per_class(self.confusion)
        columns = (
            scores.precision.round(6),
            scores.recall.round(6),
            scores.f1.round(6),
            scores.support,
        )
        rows = zip(self.classes, *(column.tolist() for column in columns), strict=True)
        return [("class", "precision", "recall", "f1", "images"), *rows]


def measure(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, float]:
    """Return the test metrics of probabilities float[N,K] and class numbers int64[N].

    Images of one of ``groups`` int64[N] are not independent, which widens the interval.
    """
    count, n_classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    size = effective_size(right, groups)
    low, high = wilson_interval(float(right.sum()) * size / count, size)
    return {
        "accuracy": measures.accuracy(predicted, labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": measures.balanced_accuracy(predicted, labels, n_classes),
        "macro_f1": measures.macro_f1(predicted, labels, n_classes),
        "log_loss": measures.log_loss(probabilities, labels),
        "ece": measures.ece(probabilities, labels),
        "brier": measures.brier(probabilities, labels),
    }


def make_report(evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
    """Return evaluation.md, per_class.csv and three pictures."""
    images = Classified.of(evidence)
    mistakes = images.mistakes()
    pictures = [
        Picture("confusion.png", partial(plot_confusion, images.confusion, images.classes)),
        Picture(
            "reliability.png",
            partial(
                plot_reliability,
                images.confidences,
                images.predicted == images.labels,
                ece=metrics["ece"],
            ),
        ),
        Picture(
            "mistakes.png",
            partial(
                plot_mistakes,
                mistakes[:MAX_MISTAKES],
                root=root,
                n_test=len(images.labels),
                n_wrong=len(mistakes),
            ),
        ),
    ]
    text = _render(images, metrics, mistakes)
    return Report(text, images.class_rows(), pictures)


def _render(
    images: Classified,
    values: Mapping[str, float],
    mistakes: Sequence[tuple[str, str, str, float]],
) -> str:
    lines = [
        "# Evaluation on the test split",
        "",
        f"**{values['accuracy']:.1%} of {values['n_test']} test images are right** "
        f"(95 % interval {values['accuracy_low']:.1%} to {values['accuracy_high']:.1%}).",
        "",
        *_cautions(values),
        *markdown_table(("measure", "value"), list_metrics(values)),
        "",
        f"![Confusion matrix]({PICTURE_FOLDER}/confusion.png)",
        "",
        "## Classes",
        "",
        *markdown_table(
            ("class", "precision", "recall", "F1", "images"),
            [
                (name, f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}", support)
                for name, precision, recall, f1, support in images.class_rows()[1:]
            ],
        ),
        "",
        "## Calibration of the probabilities",
        "",
        _calibration(values["ece"]),
        "",
        f"![Reliability diagram]({PICTURE_FOLDER}/reliability.png)",
        "",
        "## Worst mistakes",
        "",
    ]
    if not mistakes:
        return "\n".join([*lines, "There are none: every test image is right."]) + "\n"
    lines += markdown_table(
        ("image", "actual", "predicted", "probability"),
        [(path, is_, taken, f"{p:.3f}") for path, is_, taken, p in mistakes[:MAX_MISTAKES]],
    )
    return "\n".join([*lines, "", f"![Worst mistakes]({PICTURE_FOLDER}/mistakes.png)"]) + "\n"


def _cautions(values: Mapping[str, float]) -> list[str]:
    if values["n_test"] >= FEW_IMAGES:
        return []
    return [
        f"{values['n_test']} test images are few: trust the interval, not the single number, "
        "and do not choose between models whose difference is smaller than the interval.",
        "",
    ]


def _calibration(ece: float) -> str:
    verdict = "well calibrated" if ece < 0.05 else "only roughly calibrated"
    return (
        f"On average, the stated probability is {100 * ece:.1f} points away from how often the "
        f"answer is right (expected calibration error), so the model is {verdict}."
    )
