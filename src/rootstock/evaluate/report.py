"""Test predictions in, Evaluation out: numbers, tables, pictures and plain words."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from rootstock import metrics as measures
from rootstock.errors import DataError
from rootstock.plots.evaluation import plot_confusion, plot_reliability
from rootstock.plots.sheet import plot_mistakes
from rootstock.system.files import write_atomic, write_json

SHOWN_MISTAKES = 24
FEW_IMAGES = 200
"""Below this the report says that the interval matters more than the number."""


@dataclass(frozen=True)
class Evaluation:
    """Probabilities float32[N,K] of N test images, their class numbers int64[N] and paths."""

    probabilities: np.ndarray
    labels: np.ndarray
    classes: list[str]
    paths: list[str]
    honesty: Mapping[str, float] = field(default_factory=dict)
    """Measured shares that stand beside the metrics, as the stage `evaluate` finds them."""

    @property
    def predicted(self) -> np.ndarray:
        """Class numbers int64[N] of the most probable labels."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confusion(self) -> np.ndarray:
        """int64[K,K]: rows are actual classes, columns predicted ones."""
        return measures.confusion_matrix(self.predicted, self.labels, len(self.classes))

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers of reports/metrics.json."""
        count, n_classes = len(self.labels), len(self.classes)
        right = int((self.predicted == self.labels).sum())
        low, high = measures.wilson_interval(right, count)
        values = {
            "accuracy": measures.accuracy(self.predicted, self.labels),
            "accuracy_low": low,
            "accuracy_high": high,
            "balanced_accuracy": measures.balanced_accuracy(self.predicted, self.labels, n_classes),
            "macro_f1": measures.macro_f1(self.predicted, self.labels, n_classes),
            "log_loss": measures.log_loss(self.probabilities, self.labels),
            "ece": measures.ece(self.probabilities, self.labels),
            "brier": measures.brier(self.probabilities, self.labels),
        }
        values |= self.honesty
        return {name: round(value, 6) for name, value in values.items()} | {"n_test": count}

    def mistakes(self) -> list[tuple[str, str, str, float]]:
        """(path, actual, predicted, probability) of every wrong answer, the surest first."""
        sure = self.probabilities.max(axis=1)
        wrong = np.flatnonzero(self.predicted != self.labels)
        return [
            (
                self.paths[i],
                self.classes[self.labels[i]],
                self.classes[self.predicted[i]],
                float(sure[i]),
            )
            for i in wrong[np.argsort(-sure[wrong], kind="stable")]
        ]


def evaluate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    paths: Sequence[str],
    honesty: Mapping[str, float] | None = None,
) -> Evaluation:
    """Check and join probabilities float[N,K], labels int[N] and the images' paths.

    Raises:
        DataError: there is no test image.
    """
    if not len(labels):
        raise DataError(
            "there is no test image to evaluate on",
            hint="give a test split, or a data.test_fraction above 0",
        )
    return Evaluation(probabilities, labels, list(classes), list(paths), honesty or {})


def write_evaluation(evaluation: Evaluation, reports: Path, *, root: Path) -> None:
    """Write metrics.json, predictions.csv, per_class.csv, evaluation.md and three pictures.

    ``root`` is the folder that the images' paths are relative to.
    """
    pictures = reports / "plots/evaluation"
    mistakes = evaluation.mistakes()
    plot_confusion(evaluation.confusion, evaluation.classes, pictures / "confusion.png")
    plot_reliability(
        evaluation.probabilities.max(axis=1),
        evaluation.predicted == evaluation.labels,
        pictures / "reliability.png",
        ece=evaluation.metrics["ece"],
    )
    plot_mistakes(
        mistakes[:SHOWN_MISTAKES],
        pictures / "mistakes.png",
        root=root,
        n_test=len(evaluation.labels),
        n_wrong=len(mistakes),
    )
    _write_csv(reports / "predictions.csv", _prediction_rows(evaluation))
    _write_csv(reports / "per_class.csv", _class_rows(evaluation))
    with write_atomic(reports / "evaluation.md") as temporary:
        temporary.write_text(render_evaluation(evaluation), encoding="utf-8")
    write_json(reports / "metrics.json", evaluation.metrics)


def render_evaluation(evaluation: Evaluation) -> str:
    """The evaluation as Markdown, in words first."""
    values, mistakes = evaluation.metrics, evaluation.mistakes()
    lines = [
        "# Evaluation on the test split",
        "",
        f"**{values['accuracy']:.1%} of {values['n_test']} test images are right**; with so many "
        f"images the true share lies between {values['accuracy_low']:.1%} and "
        f"{values['accuracy_high']:.1%} (95 % interval).",
        "",
        *_cautions(values),
        "| measure | value |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value:g} |" for name, value in values.items()),
        "",
        "![confusion matrix](plots/evaluation/confusion.png)",
        "",
        "## Classes",
        "",
        "| class | precision | recall | F1 | images |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {precision:.3f} | {recall:.3f} | {f1:.3f} | {support} |"
            for name, precision, recall, f1, support in _class_rows(evaluation)[1:]
        ),
        "",
        "## How far the probabilities can be trusted",
        "",
        _calibration(values["ece"]),
        "",
        "![reliability diagram](plots/evaluation/reliability.png)",
        "",
        "## Worst mistakes",
        "",
    ]
    if not mistakes:
        return "\n".join([*lines, "None: every test image is right."]) + "\n"
    lines += ["| image | is | was taken for | with probability |", "| --- | --- | --- | --- |"]
    lines += [f"| {p} | {a} | {b} | {q:.3f} |" for p, a, b, q in mistakes[:SHOWN_MISTAKES]]
    return "\n".join([*lines, "", "![worst mistakes](plots/evaluation/mistakes.png)"]) + "\n"


def _cautions(values: dict[str, float]) -> list[str]:
    if values["n_test"] >= FEW_IMAGES:
        return []
    return [
        f"{values['n_test']} test images are few: look at the interval rather than the number, "
        "and do not choose between models that are closer than it is wide.",
        "",
    ]


def _calibration(ece: float) -> str:
    verdict = "well calibrated" if ece < 0.05 else "only roughly calibrated"
    return (
        f"On average the stated probability is {100 * ece:.1f} points away from how often the "
        f"answer is right (expected calibration error): {verdict}."
    )


def _prediction_rows(evaluation: Evaluation) -> list[Sequence[object]]:
    classes, sure = evaluation.classes, evaluation.probabilities.max(axis=1)
    rows = zip(evaluation.paths, evaluation.labels, evaluation.predicted, sure, strict=True)
    return [
        ("path", "actual", "predicted", "probability"),
        *((path, classes[a], classes[b], f"{p:.6f}") for path, a, b, p in rows),
    ]


def _class_rows(evaluation: Evaluation) -> list[Sequence[object]]:
    found = measures.per_class(evaluation.confusion)
    columns = (found.precision.round(6), found.recall.round(6), found.f1.round(6), found.support)
    rows = zip(evaluation.classes, *(column.tolist() for column in columns), strict=True)
    return [("class", "precision", "recall", "f1", "images"), *rows]


def _write_csv(path: Path, rows: list[Sequence[object]]) -> None:
    with (
        write_atomic(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(rows)
