"""The evaluation on the test images: numbers, tables, pictures, and text."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from rootstock.errors import DataError
from rootstock.evaluate.html_report import render_html
from rootstock.evaluate.slices import SliceSearch, describe_slices, find_worse_slices
from rootstock.system.files import write_atomic, write_json
from rootstock.tasks.answer import Answer
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import PICTURE_FOLDER, Evidence, Task


@dataclass(frozen=True)
class Evaluation:
    """A model's decisions [N,...] on N test images, and the true labels.

    ``answers``, one per image, hold sets of a stated coverage; empty for a model without a
    reference. ``facts`` are the metadata of the images.
    """

    task: Task
    decisions: np.ndarray
    targets: Targets
    paths: Sequence[str]
    answers: Sequence[Answer] = ()
    more_metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics on a part of the images, or on changed images."""
    facts: Sequence[Mapping[str, str]] = ()

    def __post_init__(self) -> None:
        """Reject an empty test.

        Raises:
            DataError: There are no test images.
        """
        if not len(self.targets):
            raise DataError(
                "there are no test images to evaluate on",
                hint="add a test split, or set data.test_fraction above 0",
            )

    @property
    def evidence(self) -> Evidence:
        """Decisions, targets, and paths."""
        return Evidence(self.decisions, self.targets, self.paths)

    @cached_property
    def slices(self) -> SliceSearch:
        """Groups of images, by metadata, that are significantly worse."""
        errors = self.task.errors(self.decisions, self.targets) if any(self.facts) else None
        if errors is None:
            return SliceSearch([], 0)
        return find_worse_slices(errors, self.facts, self.targets.groups)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers of reports/metrics.json, the main metric first."""
        values = self.task.metrics(self.decisions, self.targets)
        if self.answers:
            values |= self.task.check_promises(self.answers, self.targets)
            values["unknown_share"] = float(np.mean([bool(one.unknown) for one in self.answers]))
        values |= self.more_metrics
        rounded = {name: round(value, 6) for name, value in values.items()}
        return rounded | {"n_test": len(self.targets)}


def write_evaluation(
    evaluation: Evaluation,
    reports: Path,
    *,
    root: Path,
    notes: Sequence[str] = (),
    explanations: str = "",
    training: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write metrics.json, predictions.csv, per_class.csv, evaluation.md, and the task's pictures.

    report.html is evaluation.md with its pictures in one file. ``root`` is the folder that the
    images' paths are relative to. ``notes`` come first in evaluation.md, after its title.
    ``explanations`` is a further section in Markdown. ``training`` maps titles to pictures of the
    end of training, with paths below ``reports``.
    """
    report = evaluation.task.report(evaluation.evidence, evaluation.metrics, root)
    for picture in report.pictures:
        picture.draw(reports / PICTURE_FOLDER / picture.name)
    write_csv(reports / "predictions.csv", evaluation.task.prediction_rows(evaluation.evidence))
    write_csv(reports / "per_class.csv", report.rows)
    with write_atomic(reports / "evaluation.md") as temporary:
        title, _, body = report.text.partition("\n")
        text = "\n".join([title, *(f"\n**Note.** {note}" for note in notes), body])
        text += "".join(f"{line}\n" for line in describe_slices(evaluation.slices))
        text += f"\n{explanations}" if explanations else ""
        text += _show(training)
        temporary.write_text(text, encoding="utf-8")
    with write_atomic(reports / "report.html") as temporary:
        temporary.write_text(render_html(text, reports), encoding="utf-8")
    write_json(reports / "metrics.json", evaluation.metrics)


def _show(training: Mapping[str, str]) -> str:
    if not training:
        return ""
    pictures = (f"![{title}]({file})" for title, file in training.items())
    return "\n".join(["", "## Training", "", "\n\n".join(pictures)]) + "\n"


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write rows, header first: the whole file or nothing."""
    with (
        write_atomic(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(rows)
