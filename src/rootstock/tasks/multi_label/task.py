"""Multi label: every image has any number of labels, or none."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from rootstock.system.escape import list_names
from rootstock.tasks.annotation import Annotation
from rootstock.tasks.answer import Answer
from rootstock.tasks.comparison import Comparison
from rootstock.tasks.multi_label import calibration as fitting
from rootstock.tasks.multi_label import conformal, labels, measures
from rootstock.tasks.multi_label.answer import LabelsAnswer, LabelScore
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

    from rootstock.data.columns import Columns
    from rootstock.tasks.multi_label.learning import BinaryLoss, LogisticSolver


class MultiLabel(Task):
    """Any number of labels per image; a decision is [2,K]: probabilities, and 1 if it applies."""

    name: ClassVar[str] = "multi_label"
    columns: ClassVar[tuple[str, ...]] = ("labels",)
    gate_metrics: ClassVar[tuple[str, ...]] = (
        "mean_average_precision",
        "micro_f1",
        "macro_f1",
        "exact_match",
    )
    averages_networks: ClassVar[bool] = True
    editor: ClassVar[Editor] = "toggles"
    selection: ClassVar[str] = "val_log_loss"

    # Data

    def recognise(self, root: Path, columns: Columns | None) -> str:
        """Return `labels`, or that all columns contain 0 and 1."""
        if columns is None:
            return ""
        names = labels.find_label_columns(columns, all_of_them=True)
        if not names:
            return ""
        if len(names) == 1:
            return f"the column {list_names(names)}"
        return f"the columns {list_names(names[:5])}{' ...' if names[5:] else ''} of 0 and 1"

    def find_columns(self, columns: Columns) -> tuple[str, ...]:
        """Return the column `labels`, or the columns of 0 and 1."""
        return labels.find_label_columns(columns, all_of_them=False)

    def read_cells(self, columns: Columns, names: Sequence[str]) -> list[str]:
        """Return the labels of each row as a JSON list, `[]` for none."""
        return labels.read_label_cells(columns, names)

    def read_names(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the labels, sorted."""
        return tuple(sorted({label for text in set(texts) for label in labels.read_set(text)}))

    def parse(self, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Return float32[N,K] of 0 and 1; a label that is not among ``names`` is a DataError."""
        return labels.code_labels(texts, names)

    def strata(self, texts: Sequence[str]) -> list[str]:
        """Return the rarest label of each image."""
        return labels.stratify(texts)

    def balance(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the labels of each image."""
        return [tuple(labels.read_set(text)) or (labels.NO_LABEL,) for text in texts]

    def correct(self, old: str, new: str) -> str:
        """Return the labels in order; refuse text that is not a JSON list of names."""
        return labels.write_set(labels.parse_set(new))

    def annotate(self, text: str) -> Annotation:
        """Return the labels."""
        return Annotation(tuple(labels.read_set(text)))

    def read_annotation(self, annotation: Annotation) -> str:
        """Return the set of the labels."""
        return labels.write_set(annotation.labels)

    def check(self, root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
        """Refuse images that all have the same labels."""
        labels.check_labels(root, texts)

    def warn(self, texts: Sequence[str]) -> list[str]:
        """Name labels that are rare, that every image has, or that differ in case only."""
        return labels.warn_of_labels(texts)

    # Training

    def head(self, weighting: str = "none") -> LogisticSolver:
        """Return one logistic regression per label."""
        from rootstock.tasks.multi_label.learning import LogisticSolver

        return LogisticSolver()

    def loss(
        self,
        targets: Targets,
        *,
        weighting: str,
        label_smoothing: float,
        device: torch.device,
    ) -> BinaryLoss:
        """Return the log-loss, the mean over labels."""
        from rootstock.tasks.multi_label.learning import BinaryLoss

        return BinaryLoss(device, 1 / len(targets.names), label_smoothing)

    def average(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the logits of the mean probabilities."""
        from rootstock.tasks.multi_label.learning import average_labels

        return average_labels(outputs)

    def losses(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration | None = None
    ) -> np.ndarray:
        """Return log-losses float64[N], each the mean over labels."""
        if calibration:
            return measures.log_losses(_calibrated(outputs, calibration), targets.values)
        return measures.log_losses(measures.sigmoid(outputs), targets.values)

    def validate(self, outputs: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return log-loss, mean average precision, and micro F1 at a threshold of .5."""
        precisions = measures.label_precisions(outputs, targets.values)
        chosen = measures.Counts.of(outputs > 0, targets.values)
        return {
            "val_log_loss": float(self.losses(outputs, targets).mean()),
            "val_mean_average_precision": float(measures.mean_over_labels(precisions)[0]),
            "val_micro_f1": float(chosen.micro_f1[0]),
        }

    def calibrate(self, outputs: np.ndarray, targets: Targets) -> Calibration:
        """Return slope and offset of each label; the thresholds are .5."""
        slopes, offsets = fitting.fit_slopes(outputs, targets.values)
        return {"slopes": slopes, "offsets": offsets, "thresholds": [0.5] * len(targets.names)}

    def check_threshold(self, wish: str) -> None:
        """Accept `f1`, `precision=P`, `recall=R` and a probability."""
        fitting.check_threshold(wish)

    def choose_thresholds(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration, wish: str
    ) -> Calibration:
        """Return the calibration with the thresholds that ``wish`` asks for."""
        probabilities = _calibrated(outputs, calibration)
        thresholds = fitting.choose_thresholds(probabilities, targets.values, wish)
        return {**calibration, "thresholds": thresholds}

    def find_fault(self, names: Sequence[str], calibration: Calibration) -> str:
        """Require labels, each once, and numbers for each of them."""
        if len(set(names)) < len(names):
            return f"the label {Counter(names).most_common(1)[0][0]!r} is listed more than once"
        bounds = {
            "slopes": (fitting.MIN_SLOPE / 2, 2 * fitting.MAX_SLOPE),
            "offsets": (-100.0, 100.0),
            "thresholds": (0.0, 2.0),
        }
        for key, (low, high) in bounds.items():
            values = calibration.get(key)
            if not isinstance(values, list | tuple) or len(values) != len(names):
                return f"{key} must have {len(names)} values, one per label"
            for value in values:
                number = isinstance(value, int | float) and not isinstance(value, bool)
                if not number or not math.isfinite(value) or not low <= value <= high:
                    return f"{key} must be from {low:g} to {high:g}, but one is {value!r}"
        return ""

    def describe_calibration(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration
    ) -> dict[str, float]:
        """Return precision, F1 with the thresholds, and the calibration error before and after."""
        decided = self.decide(outputs, calibration)
        plain = measures.sigmoid(outputs)
        return {
            **self.validate(outputs, targets),
            "val_log_loss": float(self.losses(outputs, targets, calibration).mean()),
            "val_micro_f1": float(measures.Counts.of(decided[:, 1], targets.values).micro_f1[0]),
            "val_ece_before": measures.ece(plain, targets.values),
            "val_ece": measures.ece(decided[:, 0], targets.values),
        }

    def doubts(
        self, features: np.ndarray, targets: Targets, *, folds: int, seed: int
    ) -> list[Doubt]:
        """Return labels that confident learning doubts."""
        from rootstock.tasks.multi_label.doubts import doubt_labels

        return doubt_labels(features, targets, folds=folds, seed=seed)

    # Prediction

    def decide(self, outputs: np.ndarray, calibration: Calibration) -> np.ndarray:
        """Return float32[N,2,K]: calibrated probabilities, and 1 for the labels that apply."""
        probabilities = _calibrated(outputs, calibration)
        chosen = probabilities >= np.asarray(calibration["thresholds"])
        return np.stack([probabilities, chosen], axis=1).astype(np.float32)

    def answer(
        self,
        decision: np.ndarray,
        names: Sequence[str],
        options: AnswerOptions,
        reference: Arrays,
    ) -> LabelsAnswer:
        """Return every label with its probability and decision, the most probable first."""
        probabilities, chosen = decision
        order = np.argsort(-probabilities, kind="stable")
        answer = LabelsAnswer(
            scores=tuple(
                LabelScore(names[k], float(probabilities[k]), bool(chosen[k] > 0.5)) for k in order
            ),
            labels=tuple(names[k] for k in order if chosen[k] > 0.5),
        )
        if options.coverage is None:
            return answer
        possible = conformal.possible_labels(
            probabilities, options.coverage, reference["with_label"]
        )
        certain = conformal.certain_labels(
            probabilities, options.coverage, reference["without_label"]
        )
        return LabelsAnswer(
            scores=answer.scores,
            labels=answer.labels,
            possible=tuple(names[k] for k in possible),
            certain=tuple(names[k] for k in certain),
        )

    def explained(self, decision: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return the labels that apply, the most probable first; if none do, the best one."""
        probabilities, chosen = decision
        order = np.argsort(-probabilities, kind="stable")
        return [names[k] for k in order if chosen[k] > 0.5] or [names[order[0]]]

    def confidences(self, decisions: np.ndarray) -> np.ndarray:
        """Return the probabilities."""
        return decisions[:, 0]

    def remember(self, decisions: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Return the ranked scores of each label, and the ``shares`` of the predicted labels."""
        said = decisions[:, 1].sum(axis=0) + 1e-9
        return {
            **conformal.rank_scores(decisions[:, 0], targets.values),
            "shares": (said / said.sum()).astype(np.float32),
        }

    def tensor_specs(self, names: Sequence[str]) -> list[TensorSpec]:
        """Return `labels`, `probabilities` and `applies`, in the order of the labels."""
        return [
            TensorSpec("labels", "BYTES"),
            TensorSpec("probabilities", "FP32", len(names)),
            TensorSpec("applies", "BOOL", len(names)),
        ]

    def tensors(self, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, list[Any]]:
        """Return labels [N], probabilities [N*K] and decisions [N*K]."""
        probabilities: list[float] = []
        applies: list[bool] = []
        for answer in cast(Sequence[LabelsAnswer], answers):
            scores = {one.label: one for one in answer.scores or ()}
            probabilities += [scores[name].probability for name in names]
            applies += [scores[name].applies for name in names]
        texts = [answer.text for answer in answers]
        return {"labels": texts, "probabilities": probabilities, "applies": applies}

    def rankings(
        self, answers: Sequence[Answer], names: Sequence[str], count: int
    ) -> dict[str, list[list[str]]]:
        """Return the most probable labels, for `probabilities`."""
        numbers = {name: number for number, name in enumerate(names)}
        return {
            "probabilities": [
                [f"{one.probability:f}:{numbers[one.label]}:{one.label}" for one in scores[:count]]
                for scores in (one.scores or () for one in cast(Sequence[LabelsAnswer], answers))
            ]
        }

    # Evaluation

    def metrics(self, decisions: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return the mean average precision with its interval, and the other measures."""
        from rootstock.tasks.multi_label.evaluation import Labelled

        return Labelled(decisions[:, 0], decisions[:, 1] > 0.5, targets).metrics()

    def errors(self, decisions: np.ndarray, targets: Targets) -> np.ndarray:
        """Return the share of wrong labels of each image."""
        wrong = (decisions[:, 1] > 0.5) != (targets.values > 0.5)
        return np.asarray(wrong.mean(axis=1))

    def uncertainty(self, decisions: np.ndarray) -> np.ndarray:
        """Return how near to .5 the least certain label is; 1 means .5."""
        return np.asarray(1.0 - np.abs(2.0 * decisions[:, 0] - 1.0).min(axis=1), np.float64)

    def contradiction(self, decisions: np.ndarray, targets: Targets) -> np.ndarray:
        """Return the highest probability, above .5, that contradicts one of the labels."""
        against = np.abs(decisions[:, 0] - targets.values).max(axis=1)
        return np.asarray(np.maximum(against - 0.5, 0.0), np.float64)

    def read_uncertainty(self, row: Mapping[str, Any]) -> float | None:
        """Return the same for the probabilities of the row."""
        shares = json.loads(row.get("probabilities") or "{}")
        return max((1.0 - abs(2.0 * share - 1.0) for share in shares.values()), default=None)

    def answer_text(self, row: Mapping[str, Any]) -> str:
        """Return the labels that apply, joined by semicolons."""
        return str(row.get("labels") or "")

    def judge(self, row: Mapping[str, Any], label: str) -> float:
        """Return 1 if exactly the true labels apply."""
        true = labels.read_set(self.correct("", label))
        return float(";".join(true) == ";".join(sorted(self.answer_text(row).split(";"))))

    def check_promises(self, answers: Sequence[Answer], targets: Targets) -> dict[str, float]:
        """Return the share of true labels that are possible, and the number of possible labels."""
        kept = [answer.possible or () for answer in cast(Sequence[LabelsAnswer], answers)]
        numbers = [[name in one for name in targets.names] for one in kept]
        true = targets.values > 0.5
        covered = np.array(numbers)[true]
        return {
            "coverage_95": float(covered.mean()) if len(covered) else 1.0,
            "set_size_95": float(np.mean([len(one) for one in kept])),
        }

    def report(self, evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
        """Return words, the table of labels, and three pictures."""
        from rootstock.tasks.multi_label.evaluation import make_report

        return make_report(evidence, metrics, root)

    def prediction_rows(self, evidence: Evidence) -> list[Sequence[object]]:
        """Return path, actual and predicted labels, and all probabilities."""
        from rootstock.tasks.multi_label.evaluation import Labelled

        return Labelled.of(evidence).prediction_rows()

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
        """Compare two models by ``metric``, with a paired bootstrap."""
        from rootstock.tasks.multi_label.compare import compare

        return compare(champion, challenger, targets, metric=metric, rule=rule, min_gain=min_gain)

    def describe(self, names: Sequence[str]) -> str:
        """Return how many labels the model has."""
        return f"Predicts which of {len(names)} labels apply to an image, if any."

    def describe_quality(
        self,
        metrics: Mapping[str, float],
        rows: Sequence[Mapping[str, str]],
        unknown_share: float,
    ) -> list[str]:
        """Return the measures, the promises of the answers, and the weakest labels."""
        from rootstock.tasks.multi_label.card import describe_quality

        return describe_quality(metrics, rows, unknown_share)

    def describe_limits(self, unknown_share: float) -> list[str]:
        """Return the limits of the answers."""
        from rootstock.tasks.multi_label.card import describe_limits

        return describe_limits(unknown_share)


def _calibrated(outputs: np.ndarray, calibration: Calibration) -> np.ndarray:
    slopes, offsets = (np.asarray(calibration[key]) for key in ("slopes", "offsets"))
    return measures.sigmoid(slopes * outputs + offsets)
