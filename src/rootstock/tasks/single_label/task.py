"""Single label: every image belongs to exactly one class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from rootstock.tasks.annotation import Annotation
from rootstock.tasks.answer import Answer
from rootstock.tasks.comparison import Comparison
from rootstock.tasks.single_label import measures
from rootstock.tasks.single_label.answer import Candidate, ClassAnswer
from rootstock.tasks.single_label.labels import (
    check_classes,
    check_splits,
    name_lists,
    name_twins,
    number_labels,
    only_label,
    require_label,
)
from rootstock.tasks.single_label.prediction_set import prediction_set
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import (
    AnswerOptions,
    Arrays,
    Calibration,
    Doubt,
    Editor,
    Evidence,
    Report,
    Task,
    TensorSpec,
)

if TYPE_CHECKING:
    import torch

    from rootstock.tasks.learning import HeadSolver, TargetLoss

TEMPERATURES = (0.001, 1000.0)
"""The lowest and the highest allowed temperature; a fit gives .05 to 20."""


class SingleLabel(Task):
    """Classification with one class per image."""

    name: ClassVar[str] = "single_label"
    columns: ClassVar[tuple[str, ...]] = ("label",)
    in_folders: ClassVar[bool] = True
    discrete: ClassVar[bool] = True
    competing: ClassVar[bool] = True
    weightings: ClassVar[tuple[str, ...]] = (
        "none",
        "logit_adjusted",
        "balanced",
        "balanced_sampling",
    )
    gate_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "balanced_accuracy", "macro_f1")
    averages_networks: ClassVar[bool] = True
    editor: ClassVar[Editor] = "choice"
    selection: ClassVar[str] = "val_log_loss"

    # Data

    def read_names(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the classes, sorted."""
        return tuple(sorted(set(texts)))

    def parse(self, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Return class numbers int64[N]; a label that is not among ``names`` is a DataError."""
        return number_labels(texts, names)

    def strata(self, texts: Sequence[str]) -> list[str]:
        """Return the classes."""
        return list(texts)

    def correct(self, old: str, new: str) -> str:
        """Return the class without surrounding blanks; refuse an empty one."""
        return require_label(new)

    def annotate(self, text: str) -> Annotation:
        """Return the class."""
        return Annotation((text,))

    def read_annotation(self, annotation: Annotation) -> str:
        """Return the only class."""
        return only_label(annotation.labels)

    def check(self, root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
        """Refuse fewer than two classes, and classes of fewer than ``least`` images."""
        check_classes(root, texts, listed, least)

    def warn(self, texts: Sequence[str]) -> list[str]:
        """Warn about classes that differ only in case, or that look like several labels."""
        return name_twins(texts) + name_lists(texts)

    def check_splits(self, root: Path, strata: Sequence[str], splits: Sequence[str]) -> list[str]:
        """Refuse a class without training images; warn about one without other images."""
        return check_splits(root, strata, splits)

    # Training

    def head(self, weighting: str = "none") -> HeadSolver:
        """Return multinomial logistic regression."""
        from rootstock.tasks.single_label.learning import SoftmaxSolver

        return SoftmaxSolver(weighting)

    def loss(
        self,
        targets: Targets,
        *,
        weighting: str,
        label_smoothing: float,
        device: torch.device,
    ) -> TargetLoss:
        """Return cross-entropy."""
        from rootstock.tasks.single_label.learning import CrossEntropy

        return CrossEntropy.of(
            targets, weighting=weighting, label_smoothing=label_smoothing, device=device
        )

    def average(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the logs of the mean probabilities."""
        from rootstock.tasks.learning import average_classes

        return average_classes(outputs)

    def losses(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration | None = None
    ) -> np.ndarray:
        """Return log-losses float64[N]."""
        scaled = outputs / calibration["temperature"] if calibration else outputs
        return measures.log_losses(measures.softmax(scaled), targets.values)

    def validate(self, outputs: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return log-loss, accuracy and balanced accuracy."""
        predicted, labels = outputs.argmax(axis=1), targets.values
        return {
            "val_log_loss": measures.log_loss(measures.softmax(outputs), labels),
            "val_accuracy": measures.accuracy(predicted, labels),
            "val_balanced_accuracy": measures.balanced_accuracy(
                predicted, labels, outputs.shape[1]
            ),
        }

    def calibrate(self, outputs: np.ndarray, targets: Targets) -> Calibration:
        """Return the temperature."""
        return {"temperature": measures.fit_temperature(outputs, targets.values)}

    def find_fault(self, names: Sequence[str], calibration: Calibration) -> str:
        """Require at least two different classes, and a temperature that can be a divisor."""
        if len(names) < 2:
            return f"a classifier needs at least two classes, but this one has {len(names)}"
        if len(set(names)) < len(names):
            return f"the class {Counter(names).most_common(1)[0][0]!r} is listed more than once"
        temperature = calibration.get("temperature")
        low, high = TEMPERATURES
        if (
            isinstance(temperature, bool)
            or not isinstance(temperature, int | float)
            or not low <= temperature <= high
        ):
            return f"the temperature must be from {low:g} to {high:g}, but is {temperature!r}"
        return ""

    def describe_calibration(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration
    ) -> dict[str, float]:
        """Return accuracy, log-loss, and the calibration error before and after."""
        plain, calibrated = measures.softmax(outputs), self.decide(outputs, calibration)
        return {
            "val_accuracy": measures.accuracy(outputs.argmax(axis=1), targets.values),
            "val_log_loss": measures.log_loss(calibrated, targets.values),
            "val_ece_before": measures.ece(plain, targets.values),
            "val_ece": measures.ece(calibrated, targets.values),
            "temperature": calibration["temperature"],
        }

    def doubts(
        self, features: np.ndarray, targets: Targets, *, folds: int, seed: int
    ) -> list[Doubt]:
        """Return labels that confident learning doubts."""
        from rootstock.tasks.single_label.doubts import doubt_labels

        return doubt_labels(features, targets, folds=folds, seed=seed)

    def neighbour_score(self, features: np.ndarray, targets: Targets) -> float | None:
        """Return the leave-one-out accuracy of the nearest neighbours."""
        from rootstock.tasks.single_label.neighbours import leave_one_out_accuracy

        return leave_one_out_accuracy(features, targets.values, groups=targets.groups)

    def score_bound(self, features: np.ndarray, targets: Targets) -> float:
        """Return the bound of Cover and Hart on the accuracy."""
        from rootstock.tasks.single_label.neighbours import (
            bayes_accuracy_bound,
            leave_one_out_accuracy,
        )

        nearest = leave_one_out_accuracy(
            features, targets.values, groups=targets.groups, neighbours=1
        )
        return bayes_accuracy_bound(nearest, len(targets.names))

    # Prediction

    def decide(self, outputs: np.ndarray, calibration: Calibration) -> np.ndarray:
        """Return calibrated probabilities [N,K]."""
        return measures.softmax(outputs / calibration["temperature"])

    def answer(
        self,
        decision: np.ndarray,
        names: Sequence[str],
        options: AnswerOptions,
        reference: Arrays,
    ) -> ClassAnswer:
        """Return the most probable classes, and the prediction set of a ``coverage``."""
        order = np.argsort(-decision, kind="stable")[: options.top_k]
        top = tuple(Candidate(names[index], float(decision[index])) for index in order)
        if options.coverage is None:
            return ClassAnswer(top=top)
        chosen = prediction_set(decision, options.coverage, reference["scores"])
        return ClassAnswer(top=top, labels=tuple(names[index] for index in chosen))

    def explained(self, decision: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return the most probable class."""
        return [names[int(decision.argmax())]]

    def confidences(self, decisions: np.ndarray) -> np.ndarray:
        """Return the probabilities."""
        return decisions

    def remember(self, decisions: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Return ``scores`` float32[V] and ``shares`` float32[K] of the validation images.

        ``scores``: 1 - probability of the true class, ascending; ``shares``: how often each class
        was predicted.
        """
        true = decisions[np.arange(len(targets)), targets.values]
        votes = np.bincount(decisions.argmax(axis=1), minlength=decisions.shape[1])
        return {
            "scores": np.sort(1 - true).astype(np.float32),
            "shares": (votes / votes.sum()).astype(np.float32),
        }

    def decided(self, decisions: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return the most probable class of each row."""
        return [names[index] for index in decisions.argmax(axis=1)]

    def tensor_specs(self, names: Sequence[str]) -> list[TensorSpec]:
        """Return `label` and `probabilities`, the latter in the order of the classes."""
        return [TensorSpec("label", "BYTES"), TensorSpec("probabilities", "FP32", len(names))]

    def tensors(self, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, list[Any]]:
        """Return labels [N] and probabilities [N*K]."""
        probabilities: list[float] = []
        for answer in cast(Sequence[ClassAnswer], answers):
            share = {one.label: one.probability for one in answer.top or ()}
            probabilities += [share[name] for name in names]
        return {"label": [answer.text for answer in answers], "probabilities": probabilities}

    def rankings(
        self, answers: Sequence[Answer], names: Sequence[str], count: int
    ) -> dict[str, list[list[str]]]:
        """Return the most probable classes, for `probabilities`."""
        numbers = {name: number for number, name in enumerate(names)}
        return {
            "probabilities": [
                [f"{one.probability:f}:{numbers[one.label]}:{one.label}" for one in top[:count]]
                for top in (answer.top or () for answer in cast(Sequence[ClassAnswer], answers))
            ]
        }

    # Evaluation

    def metrics(self, decisions: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return accuracy with its interval, and the other measures of a classifier."""
        from rootstock.tasks.single_label.evaluation import measure

        return measure(decisions, targets.values, targets.groups)

    def errors(self, decisions: np.ndarray, targets: Targets) -> np.ndarray:
        """Return 1 for each image whose most probable class is wrong."""
        return np.asarray(decisions.argmax(axis=1) != targets.values, np.float64)

    def uncertainty(self, decisions: np.ndarray) -> np.ndarray:
        """Return 1 - the margin between the two most probable classes (Scheffer et al. 2001)."""
        best = np.sort(decisions, axis=1)[:, -2:]
        return np.asarray(1.0 - (best[:, 1] - best[:, 0]), np.float64)

    def contradiction(self, decisions: np.ndarray, targets: Targets) -> np.ndarray:
        """Return how much more probable the best class is than the label."""
        own = decisions[np.arange(len(targets)), targets.values]
        return np.asarray(decisions.max(axis=1) - own, np.float64)

    def read_uncertainty(self, row: Mapping[str, Any]) -> float | None:
        """Return the probability that the class is wrong."""
        probability = row.get("probability")
        return None if probability is None else 1.0 - float(probability)

    def expected_scores(self, answers: Sequence[Answer]) -> np.ndarray:
        """Return the probability of the most probable class."""
        some = cast(Sequence[ClassAnswer], answers)
        return np.array([answer.probability for answer in some], np.float64)

    def judge(self, row: Mapping[str, Any], label: str) -> float:
        """Return 1 if the most probable class is the true one."""
        return float(row["label"] == require_label(label))

    def check_promises(self, answers: Sequence[Answer], targets: Targets) -> dict[str, float]:
        """Return the share of sets with the true class, and the mean size of the sets."""
        sets = [answer.labels or () for answer in cast(Sequence[ClassAnswer], answers)]
        truths = [targets.names[label] for label in targets.values]
        return {
            "coverage_95": float(
                np.mean([t in kept for t, kept in zip(truths, sets, strict=True)])
            ),
            "set_size_95": float(np.mean([len(labels) for labels in sets])),
        }

    def report(self, evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
        """Return words, the table of classes, and three pictures."""
        from rootstock.tasks.single_label.evaluation import make_report

        return make_report(evidence, metrics, root)

    def prediction_rows(self, evidence: Evidence) -> list[Sequence[object]]:
        """Return path, actual and predicted class, and the probability of the latter."""
        from rootstock.tasks.single_label.evaluation import Classified

        return Classified.of(evidence).prediction_rows()

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
        from rootstock.tasks.single_label.gate import compare

        return compare(
            champion,
            challenger,
            targets.values,
            groups=targets.groups,
            metric=metric,
            rule=rule,
            min_gain=min_gain,
        )

    def describe(self, names: Sequence[str]) -> str:
        """Return how many classes the model distinguishes."""
        return f"Classifies an image as one of {len(names)} classes."

    def describe_quality(
        self,
        metrics: Mapping[str, float],
        rows: Sequence[Mapping[str, str]],
        unknown_share: float,
    ) -> list[str]:
        """Return accuracy, calibration, the promises of the answers, and the weakest classes."""
        from rootstock.tasks.single_label.card import describe_quality

        return describe_quality(metrics, rows, unknown_share)

    def describe_limits(self, unknown_share: float) -> list[str]:
        """Return what happens to an image of none of the classes."""
        from rootstock.tasks.single_label.card import describe_limits

        return describe_limits(unknown_share)
