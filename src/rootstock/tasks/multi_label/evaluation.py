"""The evaluation of several labels as a report: text, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from rootstock.metrics import draw_counts, percentile_interval
from rootstock.plots.sheet import plot_captioned
from rootstock.system.escape import markdown_table
from rootstock.tasks.metric_words import list_metrics
from rootstock.tasks.multi_label import measures
from rootstock.tasks.multi_label.plots import plot_label_precisions, plot_precision_recall
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import PICTURE_FOLDER, Evidence, Picture, Report

MAX_MISTAKES = 24
FEW_IMAGES = 20
"""With fewer test images of a label the table marks it."""


@dataclass(frozen=True)
class Labelled:
    """N test images: probabilities [N,K], decisions bool[N,K], their targets and paths."""

    probabilities: np.ndarray
    chosen: np.ndarray
    targets: Targets
    paths: Sequence[str] = ()

    @classmethod
    def of(cls, evidence: Evidence) -> Labelled:
        """Return the images of ``evidence``."""
        decisions = evidence.decisions
        return cls(decisions[:, 0], decisions[:, 1] > 0.5, evidence.targets, evidence.paths)

    @property
    def present(self) -> np.ndarray:
        """Whether each image has each label, bool[N,K]."""
        return self.targets.values > 0.5

    @cached_property
    def counts(self) -> measures.Counts:
        """Right, wrong and missed labels."""
        return measures.Counts.of(self.chosen, self.present)

    @cached_property
    def precisions(self) -> np.ndarray:
        """The average precision of each label, [K]; NaN if no image has it."""
        return measures.label_precisions(self.probabilities, self.present)[0]

    @cached_property
    def drawn_precisions(self) -> np.ndarray:
        """The same in draws of whole groups of the images, [R,K]."""
        n_images, n_labels = self.present.shape
        weights = draw_counts(self.targets.groups, n_images, width=n_labels)
        return measures.label_precisions(self.probabilities, self.present, weights)

    def metrics(self) -> dict[str, float]:
        """Return the test metrics, the headline first."""
        low, high = percentile_interval(measures.mean_over_labels(self.drawn_precisions))
        right, wrong = self.counts.right.sum(), self.counts.wrong.sum()
        missed = self.counts.missed.sum()
        return {
            "mean_average_precision": float(measures.mean_over_labels(self.precisions[None])[0]),
            "mean_average_precision_low": low,
            "mean_average_precision_high": high,
            "micro_f1": float(self.counts.micro_f1[0]),
            "macro_f1": float(self.counts.macro_f1[0]),
            "micro_precision": float(right / max(right + wrong, 1)),
            "micro_recall": float(right / max(right + missed, 1)),
            "exact_match": float(measures.exact_match(self.chosen, self.present)[0]),
            "log_loss": float(measures.log_losses(self.probabilities, self.present).mean()),
            "ece": measures.ece(self.probabilities, self.present),
        }

    def label_rows(self) -> list[Sequence[object]]:
        """Return the rows of per_class.csv, its header first."""
        known = np.isfinite(self.drawn_precisions).any(axis=0)
        header = (
            *("label", "average_precision", "low", "high"),
            *("precision", "recall", "f1", "images"),
        )
        rows: list[Sequence[object]] = [header]
        for k, name in enumerate(self.targets.names):
            interval: tuple[object, object] = ("", "")
            if known[k]:
                drawn = self.drawn_precisions[:, k]
                interval = tuple(  # type: ignore[assignment]
                    round(one, 6) for one in percentile_interval(drawn[np.isfinite(drawn)])
                )
            of_label = (self.counts.precision, self.counts.recall, self.counts.f1)
            precision = "" if np.isnan(self.precisions[k]) else round(float(self.precisions[k]), 6)
            rows.append(
                (
                    name,
                    precision,
                    *interval,
                    *(round(float(values[0, k]), 6) for values in of_label),
                    int(self.present[:, k].sum()),
                )
            )
        return rows

    def mistakes(self) -> list[tuple[str, str, list[str]]]:
        """Return (path, true labels, mistakes) of images with wrong labels, the worst first."""
        wrong = self.chosen != self.present
        surprise = np.where(wrong, np.abs(self.probabilities - self.present), 0).sum(axis=1)
        order = np.argsort(-surprise, kind="stable")
        return [
            (self.paths[i], _join(self.targets.names, self.present[i]), self._faults(i))
            for i in order
            if wrong[i].any()
        ]

    def _faults(self, row: int) -> list[str]:
        """Return the wrong labels of an image, the clearest mistakes first."""
        wrong = np.flatnonzero(self.chosen[row] != self.present[row])
        surprise = np.abs(self.probabilities[row, wrong] - self.present[row, wrong])
        return [
            f"{'+' if self.chosen[row, k] else '−'} {self.targets.names[k]}"
            for k in wrong[np.argsort(-surprise, kind="stable")]
        ]

    def prediction_rows(self) -> list[Sequence[object]]:
        """Return the rows of predictions.csv, its header first."""
        names = self.targets.names
        rows: list[Sequence[object]] = [
            ("path", "actual", "predicted", *(f"probability of {name}" for name in names))
        ]
        for i, path in enumerate(self.paths):
            actual, predicted = _join(names, self.present[i]), _join(names, self.chosen[i])
            rows.append((path, actual, predicted, *(f"{p:.6f}" for p in self.probabilities[i])))
        return rows


def make_report(evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
    """Return evaluation.md, per_class.csv and three pictures."""
    images = Labelled.of(evidence)
    mistakes = images.mistakes()
    rows = images.label_rows()
    about = f"{len(mistakes):,} of {len(images.paths):,} test images have a wrong label"
    headlines = ("Worst mistakes", f"{about}; + is wrongly predicted, − is missing")
    # A caption has room for two mistakes, one per line.
    captioned = [
        (path, faults[0], faults[1] if faults[1:] else "")
        for path, _, faults in mistakes[:MAX_MISTAKES]
    ]
    pictures = [
        Picture(
            "precision_recall.png",
            partial(
                plot_precision_recall,
                images.probabilities,
                images.present,
                images.chosen,
                images.targets.names,
            ),
        ),
        Picture("labels.png", partial(plot_label_precisions, rows[1:])),
        Picture(
            "mistakes.png",
            partial(plot_captioned, captioned, root=root, headlines=headlines),
        ),
    ]
    return Report(_render(metrics, rows, mistakes), rows, pictures)


def _render(
    values: Mapping[str, float],
    rows: Sequence[Sequence[object]],
    mistakes: Sequence[tuple[str, str, Sequence[str]]],
) -> str:
    lines = [
        "# Evaluation on the test split",
        "",
        f"**The mean average precision over the labels is "
        f"{values['mean_average_precision']:.3f}** on {values['n_test']} test images (95 % "
        f"interval {values['mean_average_precision_low']:.3f} to "
        f"{values['mean_average_precision_high']:.3f}, bootstrap). With the thresholds of the "
        f"model, {values['micro_precision']:.1%} of the predicted labels are right, and "
        f"{values['micro_recall']:.1%} of the true labels are predicted. "
        f"{values['exact_match']:.1%} of the images have no wrong label.",
        "",
        *markdown_table(
            ("measure", "value"),
            list_metrics(values),
        ),
        "",
        f"![Precision and recall]({PICTURE_FOLDER}/precision_recall.png)",
        "",
        "## Labels",
        "",
        *markdown_table(
            ("label", "average precision", "95 % interval", "precision", "recall", "F1", "images"),
            [_label_line(row) for row in rows[1:]],
        ),
        "",
        f"![Average precision of the labels]({PICTURE_FOLDER}/labels.png)",
        "",
        "## Calibration of the probabilities",
        "",
        f"On average over the labels, the stated probability is {100 * values['ece']:.1f} points "
        "away from how often the label applies (expected calibration error).",
        "",
        "## Worst mistakes",
        "",
    ]
    if not mistakes:
        return (
            "\n".join([*lines, "There are none: all labels of all test images are right."]) + "\n"
        )
    lines += markdown_table(
        ("image", "has", "mistake (+ wrongly predicted, − missing)"),
        [(path, has, ", ".join(faults)) for path, has, faults in mistakes[:MAX_MISTAKES]],
    )
    return "\n".join([*lines, "", f"![Worst mistakes]({PICTURE_FOLDER}/mistakes.png)"]) + "\n"


def _label_line(row: Sequence[object]) -> tuple[object, ...]:
    name, average, low, high, precision, recall, f1, images = row
    if average == "":
        return (name, "not tested", "", "", "", "", 0)
    few = ", few" if int(str(images)) < FEW_IMAGES else ""
    measured = (f"{value:.3f}" for value in (precision, recall, f1))
    return (name, f"{average:.3f}", f"{low:.3f} to {high:.3f}", *measured, f"{images}{few}")


def _join(names: Sequence[str], mask: np.ndarray) -> str:
    return ";".join(name for name, has in zip(names, mask, strict=True) if has)
