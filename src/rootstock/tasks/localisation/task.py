"""Localisation: every image has one class and one box."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from rootstock.data.entry import count
from rootstock.data.target_rules import Settled
from rootstock.errors import DataError
from rootstock.tasks.annotation import Annotation
from rootstock.tasks.answer import Answer
from rootstock.tasks.comparison import Comparison
from rootstock.tasks.localisation import boxes, measures
from rootstock.tasks.localisation.answer import Box, BoxAnswer
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import (
    AnswerOptions,
    Arrays,
    Calibration,
    Doubt,
    Editor,
    Evidence,
    Report,
    Subject,
    TensorSpec,
)

if TYPE_CHECKING:
    import torch

    from rootstock.tasks.learning import HeadSolver, TargetLoss

GRID = 7
"""Cells along each side of the maps that the box reads."""
CLASSES = SingleLabel()
"""The task for the class of an image."""
BOX = "box"
"""The name of the box for heat maps."""
MAX_OUTSIDE = 0.01
"""If a larger share of a box is outside its image, the user gets a warning."""


class Localisation(SingleLabel):
    """Classification with one class per image, and one box around the object.

    A text in a table is the class and the box in pixels (`boxes.read_text`), one in the manifest
    the class and the box in shares of the image's sides (`boxes.place_text`). ``values``
    float32[N,5] are class number, left, top, right and bottom; outputs and decisions [N,K+4] are
    those of the classes, then the box.
    """

    name: ClassVar[str] = "localisation"
    columns: ClassVar[tuple[str, ...]] = ("label", *boxes.SIDES)
    in_folders: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    competing: ClassVar[bool] = False
    spatial: ClassVar[bool] = True
    weightings: ClassVar[tuple[str, ...]] = ("none",)
    gate_metrics: ClassVar[tuple[str, ...]] = ("localisation_accuracy", "mean_iou", "accuracy")
    averages_networks: ClassVar[bool] = True
    editor: ClassVar[Editor] = "box"
    selection: ClassVar[str] = "val_loss"

    # Data

    def read_names(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the classes, sorted."""
        return CLASSES.read_names(_labels(texts))

    def width(self, names: Sequence[str]) -> int:
        """Return one output for each class, and four for the box."""
        return len(names) + 4

    def read_tap(self, depth: str, taps: Sequence[str]) -> str:
        """Return the features of ``depth`` for the class, and its deepest map for the box."""
        with_map = [part for part in depth.split("+") if part != taps[-1]] or [taps[-2]]
        return f"{with_map[-1]}@{GRID}+{depth}"

    def parse(self, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Return class numbers and boxes float32[N,5]."""
        numbers = CLASSES.parse(_labels(texts), names)
        return np.column_stack([numbers, boxes.read_shares(texts)]).astype(np.float32)

    def strata(self, texts: Sequence[str]) -> list[str]:
        """Return the classes."""
        return _labels(texts)

    def caption(self, text: str) -> str:
        """Return the class."""
        return boxes.read_label(text)

    def check_texts(self, root: Path, texts: Sequence[str]) -> None:
        """Refuse boxes that are not four numbers or have no area."""
        for number, text in enumerate(texts, start=1):
            try:
                boxes.read_text(text)
            except DataError as error:
                message = f"{root}, image {number} in order of path: {error.message}"
                raise DataError(message, hint=error.hint) from None

    def settle(
        self, root: Path, texts: Sequence[str], paths: Sequence[str], sizes: np.ndarray
    ) -> Settled:
        """Return the boxes in shares; what is outside an image is cut off."""
        placed = [
            boxes.place_text(text, (int(width), int(height)))
            for text, (width, height) in zip(texts, sizes, strict=True)
        ]
        cut = [(path, outside) for path, (_, outside) in zip(paths, placed, strict=True)]
        for path, outside in cut:
            if outside >= 1.0:
                raise DataError(
                    f"the box of {root / path} is outside the image",
                    hint="write boxes as x, y, width and height in pixels of the upright image",
                )
        leaving = [path for path, outside in cut if outside > MAX_OUTSIDE]
        warnings = []
        if leaving:
            warnings.append(
                f"{count(len(leaving), 'image')} with a box partly outside, the first is "
                f"{leaving[0]}; the part inside is used"
            )
        return Settled([text for text, _ in placed], warnings)

    def correct(self, old: str, new: str) -> str:
        """Return the class and its box in shares of the image's sides."""
        return boxes.correct_text(new)

    def annotate(self, text: str) -> Annotation:
        """Return the class and its box."""
        left, top, right, bottom = map(float, boxes.read_shares([text])[0].round(6))
        return Annotation((boxes.read_label(text),), (left, top, right, bottom))

    def read_annotation(self, annotation: Annotation) -> str:
        """Return the text of the only class and its box."""
        label = CLASSES.read_annotation(annotation)
        return boxes.correct_text(json.dumps([label, *(annotation.box or ())]))

    def check(self, root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
        """Refuse fewer than two classes, and classes of fewer than ``least`` images."""
        CLASSES.check(root, _labels(texts), _labels(listed), least)

    def warn(self, texts: Sequence[str]) -> list[str]:
        """Name classes that differ in case only."""
        return CLASSES.warn(_labels(texts))

    # Training

    def head(self, weighting: str = "none") -> HeadSolver:
        """Return logistic regression for the class and ridge regression for the box."""
        from rootstock.tasks.localisation.learning import LocalisationSolver

        return LocalisationSolver()

    def loss(
        self,
        targets: Targets,
        *,
        weighting: str,
        label_smoothing: float,
        device: torch.device,
    ) -> TargetLoss:
        """Return cross-entropy, L1 and GIoU."""
        from rootstock.tasks.localisation.learning import BoxLoss

        return BoxLoss(len(targets.names), label_smoothing, device)

    def average(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the logs of the mean probabilities, and the mean of the boxes."""
        from rootstock.tasks.localisation.learning import average_boxes

        return average_boxes(outputs)

    def losses(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration | None = None
    ) -> np.ndarray:
        """Return the sum of log-loss, L1 and GIoU of each image."""
        temperature = calibration["temperature"] if calibration else 1.0
        return measures.losses(outputs, targets.values, temperature)

    def validate(self, outputs: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return the loss, and how often class and box are right."""
        measured = measures.measure(self.decide(outputs, {"temperature": 1.0}), targets.values)
        names = ("localisation_accuracy", "accuracy", "mean_iou")
        return {
            "val_loss": float(self.losses(outputs, targets).mean()),
            **{f"val_{name}": measured[name] for name in names},
        }

    def calibrate(self, outputs: np.ndarray, targets: Targets) -> Calibration:
        """Return the temperature of the classes."""
        return CLASSES.calibrate(outputs[:, :-4], _classes(targets))

    def describe_calibration(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration
    ) -> dict[str, float]:
        """Return the metrics of an epoch, and the calibration error before and after."""
        of_classes = CLASSES.describe_calibration(outputs[:, :-4], _classes(targets), calibration)
        return {**self.validate(outputs, targets), **of_classes}

    def doubts(
        self, features: np.ndarray, targets: Targets, *, folds: int, seed: int
    ) -> list[Doubt]:
        """Return classes that confident learning doubts."""
        return CLASSES.doubts(features, _classes(targets), folds=folds, seed=seed)

    def neighbour_score(self, features: np.ndarray, targets: Targets) -> None:
        """Return None: the nearest neighbours do not predict a box."""

    def score_bound(self, features: np.ndarray, targets: Targets) -> float:
        """Return the bound of Cover and Hart on the accuracy of the class."""
        return CLASSES.score_bound(features, _classes(targets))

    # Prediction

    def subjects(self, names: Sequence[str]) -> dict[str, Subject]:
        """Return the classes, and the box unless a class has its name."""
        sides = tuple(range(len(names), len(names) + 4))
        return {BOX: Subject(sides)} | CLASSES.subjects(names)

    def explained(self, decision: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return the most probable class, and the box."""
        found = CLASSES.explained(decision[:-4], names)
        return found if BOX in names else [*found, BOX]

    def confidences(self, decisions: np.ndarray) -> np.ndarray:
        """Return the probabilities of the classes."""
        return decisions[:, :-4]

    def decide(self, outputs: np.ndarray, calibration: Calibration) -> np.ndarray:
        """Return calibrated probabilities and boxes [N,K+4] within the image."""
        probabilities = CLASSES.decide(outputs[:, :-4], calibration)
        return np.concatenate([probabilities, boxes.tidy(outputs[:, -4:])], axis=1)

    def answer(
        self,
        decision: np.ndarray,
        names: Sequence[str],
        options: AnswerOptions,
        reference: Arrays,
    ) -> BoxAnswer:
        """Return the most probable classes, and the box in pixels."""
        of_class = CLASSES.answer(decision[:-4], names, options, reference)
        width, height = options.size
        left, top, right, bottom = (float(share) for share in decision[-4:])
        box = Box(
            round(left * width, 1),
            round(top * height, 1),
            round((right - left) * width, 1),
            round((bottom - top) * height, 1),
        )
        return BoxAnswer(top=of_class.top, labels=of_class.labels, box=box)

    def remember(self, decisions: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Return scores and shares of the classes of the validation images."""
        return CLASSES.remember(decisions[:, :-4], _classes(targets))

    def tensor_specs(self, names: Sequence[str]) -> list[TensorSpec]:
        """Return `label`, `probabilities`, and `box`: x, y, width, height in pixels."""
        return [*CLASSES.tensor_specs(names), TensorSpec("box", "FP32", 4)]

    def tensors(self, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, list[Any]]:
        """Return labels [N], probabilities [N*K] and boxes [N*4]."""
        numbers: list[float] = []
        for answer in cast(Sequence[BoxAnswer], answers):
            assert answer.box is not None
            numbers += [getattr(answer.box, side) for side in boxes.SIDES]
        return {**CLASSES.tensors(answers, names), "box": numbers}

    # Evaluation

    def metrics(self, decisions: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return how often class and box are right, and the measures of each."""
        return measures.measure(decisions, targets.values)

    def errors(self, decisions: np.ndarray, targets: Targets) -> np.ndarray:
        """Return 1 for each image whose class or box is wrong."""
        return 1.0 - measures.hits(decisions, targets.values)

    def uncertainty(self, decisions: np.ndarray) -> np.ndarray:
        """Return the uncertainty of the class."""
        return CLASSES.uncertainty(decisions[:, :-4])

    def contradiction(self, decisions: np.ndarray, targets: Targets) -> np.ndarray:
        """Return the contradiction of the class, or the unshared part of the boxes if larger."""
        apart = 1.0 - boxes.overlap(decisions[:, -4:], targets.values[:, 1:])
        of_class = CLASSES.contradiction(decisions[:, :-4], _classes(targets))
        return np.asarray(np.maximum(of_class, apart), np.float64)

    def judge(self, row: Mapping[str, Any], label: str) -> float:
        """Return 1 if the class is the true one; ``label`` may be the class only."""
        name = boxes.read_label(boxes.correct_text(label)) if label.startswith("[") else label
        return CLASSES.judge(row, name)

    def check_promises(self, answers: Sequence[Answer], targets: Targets) -> dict[str, float]:
        """Return in how many sets the true class is, and how many classes they hold."""
        return CLASSES.check_promises(answers, _classes(targets))

    def report(self, evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
        """Return words, the table of classes, and three pictures."""
        from rootstock.tasks.localisation.evaluation import make_report

        return make_report(evidence, metrics, root)

    def prediction_rows(self, evidence: Evidence) -> list[Sequence[object]]:
        """Return path, actual and predicted class, its probability, both boxes and their IoU."""
        from rootstock.tasks.localisation.evaluation import Localised

        return Localised.of(evidence).prediction_rows()

    def compare(
        self,
        champion: np.ndarray,
        challenger: np.ndarray,
        targets: Targets,
        *,
        metric: str,
        rule: str,
        min_gain: float,
    ) -> Comparison:
        """Compare two models by ``metric``, with an interval of the gain."""
        from rootstock.tasks.localisation.gate import compare

        return compare(
            champion, challenger, targets.values, metric=metric, rule=rule, min_gain=min_gain
        )

    def describe(self, names: Sequence[str]) -> str:
        """Return how many classes the model distinguishes, and that it predicts a box."""
        return f"Classifies an image as one of {len(names)} classes and finds the object's box."

    def describe_quality(
        self,
        metrics: Mapping[str, float],
        rows: Sequence[Mapping[str, str]],
        unknown_share: float,
    ) -> list[str]:
        """Return how often class and box are right, and the weakest classes."""
        from rootstock.tasks.localisation.evaluation import describe_quality

        return describe_quality(metrics, rows)

    def describe_limits(self, unknown_share: float) -> list[str]:
        """Return what happens to an image of no object, or of several."""
        return [
            *CLASSES.describe_limits(unknown_share),
            "- Every image gets exactly one box, even if it shows no object or several.",
        ]


def _labels(texts: Sequence[str]) -> list[str]:
    return [boxes.read_label(text) for text in texts]


def _classes(targets: Targets) -> Targets:
    """Return the targets of a classifier."""
    numbers = targets.values[:, 0].astype(np.int64)
    return Targets(numbers, targets.names, targets.strata, targets.groups)
