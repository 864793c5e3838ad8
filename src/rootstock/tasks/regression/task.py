"""Regression: every image has one or several numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from rootstock.metrics import stability_index
from rootstock.system.escape import escape_markdown, list_names
from rootstock.tasks.annotation import Annotation
from rootstock.tasks.answer import Answer
from rootstock.tasks.comparison import Comparison
from rootstock.tasks.regression import measures, numbers
from rootstock.tasks.regression.answer import NumberEstimate, NumbersAnswer
from rootstock.tasks.regression.intervals import interval_width
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import (
    AnswerOptions,
    Arrays,
    Calibration,
    Editor,
    Evidence,
    Report,
    Task,
    TensorSpec,
)

if TYPE_CHECKING:
    import torch

    from rootstock.data.columns import Columns
    from rootstock.tasks.regression.learning import HuberLoss, RidgeSolver

DRIFT_BINS = 10


class Regression(Task):
    """One or several numbers per image; a decision is float64[K] in the user's units."""

    name: ClassVar[str] = "regression"
    columns: ClassVar[tuple[str, ...]] = ("target",)
    gate_metrics: ClassVar[tuple[str, ...]] = (
        "mean_absolute_error",
        "root_mean_squared_error",
        "r2",
    )
    lower_is_better: ClassVar[frozenset[str]] = frozenset(
        {"mean_absolute_error", "root_mean_squared_error"}
    )
    averages_networks: ClassVar[bool] = True
    editor: ClassVar[Editor] = "numbers"
    selection: ClassVar[str] = "val_loss"

    @property
    def score(self) -> str:
        """The explained share of the variance."""
        return "r2"

    # Data

    def recognise(self, root: Path, columns: Columns | None) -> str:
        """Return `target`, or that all columns contain numbers."""
        if columns is None:
            return ""
        names = numbers.find_number_columns(columns, all_of_them=True)
        return f"the numbers in {list_names(names)}" if names else ""

    def find_columns(self, columns: Columns) -> tuple[str, ...]:
        """Return the column `target`, or those of numbers."""
        return numbers.find_number_columns(columns, all_of_them=False)

    def read_cells(self, columns: Columns, names: Sequence[str]) -> list[str]:
        """Return the numbers of each row; a cell that is not a finite number is a DataError."""
        return numbers.read_number_cells(columns, names)

    def read_names(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the numbers, in the order of the columns."""
        return tuple(numbers.read_numbers(texts[0])) if texts else (numbers.TARGET,)

    def parse(self, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Return float32[N,K]."""
        return numbers.read_values(texts, names)

    def strata(self, texts: Sequence[str]) -> list[str]:
        """Return the bin of the first number."""
        return numbers.bin_numbers(texts)

    def measure_units(self, values: np.ndarray) -> np.ndarray | None:
        """Return mean and deviation."""
        return measures.measure_units(values) if len(values) else None

    def correct(self, old: str, new: str) -> str:
        """Return the numbers; refuse other names than in ``old``, and infinite numbers."""
        return numbers.correct_numbers(old, new)

    def annotate(self, text: str) -> Annotation:
        """Return the numbers."""
        return Annotation(numbers=numbers.read_numbers(text))

    def read_annotation(self, annotation: Annotation) -> str:
        """Return the text of the numbers."""
        return numbers.write_numbers(annotation.numbers)

    def check(self, root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
        """Refuse numbers that are all the same."""
        numbers.check_numbers(root, texts)

    # Training

    def head(self, weighting: str = "none") -> RidgeSolver:
        """Return ridge regression."""
        from rootstock.tasks.regression.learning import RidgeSolver

        return RidgeSolver()

    def loss(
        self,
        targets: Targets,
        *,
        weighting: str,
        label_smoothing: float,
        device: torch.device,
    ) -> HuberLoss:
        """Return Huber's loss of standardised errors."""
        from rootstock.tasks.regression.learning import HuberLoss

        return HuberLoss(targets, device)

    def average(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the mean numbers."""
        return outputs.mean(dim=0)

    def losses(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration | None = None
    ) -> np.ndarray:
        """Return Huber's losses float64[N]."""
        return measures.huber_losses(outputs, targets)

    def validate(self, outputs: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return the loss, the mean absolute error, and the explained share of the variance."""
        decisions = self.decide(outputs, self.calibrate(outputs, targets))
        return {
            "val_loss": float(self.losses(outputs, targets).mean()),
            "val_mean_absolute_error": float(np.abs(decisions - targets.values).mean()),
            "val_r2": measures.explained_share(decisions, targets.values),
        }

    def calibrate(self, outputs: np.ndarray, targets: Targets) -> Calibration:
        """Return the units of the outputs."""
        means, scales = measures.units_of(targets).tolist()
        return {"means": means, "scales": scales}

    def read_units(self, calibration: Calibration) -> np.ndarray:
        """Return mean and deviation of the training images."""
        return np.array([calibration["means"], calibration["scales"]], np.float64)

    def find_fault(self, names: Sequence[str], calibration: Calibration) -> str:
        """Require a finite mean and a positive scale for each number."""
        if len(set(names)) < len(names):
            return f"the number {Counter(names).most_common(1)[0][0]!r} is listed more than once"
        for key in ("means", "scales"):
            values = calibration.get(key)
            if not isinstance(values, list | tuple) or len(values) != len(names):
                return f"{key} must have {len(names)} values, one per number"
            for value in values:
                number = isinstance(value, int | float) and not isinstance(value, bool)
                if not number or not math.isfinite(value) or (key == "scales" and value <= 0):
                    return f"{key} must be finite, and scales above 0, but one is {value!r}"
        return ""

    # Prediction

    def decide(self, outputs: np.ndarray, calibration: Calibration) -> np.ndarray:
        """Return float64[N,K] in the user's units."""
        means, scales = (np.asarray(calibration[key], np.float64) for key in ("means", "scales"))
        return np.asarray(outputs.astype(np.float64) * scales + means)

    def answer(
        self,
        decision: np.ndarray,
        names: Sequence[str],
        options: AnswerOptions,
        reference: Arrays,
    ) -> NumbersAnswer:
        """Return the numbers, and the intervals of a ``coverage``."""
        estimates = []
        for k, (name, value) in enumerate(zip(names, decision.tolist(), strict=True)):
            width = None
            if options.coverage is not None:
                width = interval_width(reference["errors"][:, k], options.coverage)
            ends = (None, None) if width is None else (value - width, value + width)
            estimates.append(NumberEstimate(name, value, *ends))
        return NumbersAnswer(values=tuple(estimates))

    def remember(self, decisions: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Return ``errors`` float32[V], ascending, and ``borders`` float64[9,K] of the deciles."""
        errors = np.sort(np.abs(decisions - targets.values), axis=0)
        inner = np.linspace(0, 1, DRIFT_BINS + 1)[1:-1]
        return {
            "errors": errors.astype(np.float32),
            "borders": np.quantile(decisions, inner, axis=0),
        }

    def drift(
        self, answers: Sequence[Answer], names: Sequence[str], reference: Arrays
    ) -> dict[str, float]:
        """Return how far the predicted numbers are from those of the validation images."""
        if "borders" not in reference:
            return {}
        scores = {}
        for k, name in enumerate(names):
            said = [
                one.values[k].value for one in cast(Sequence[NumbersAnswer], answers) if one.values
            ]
            bins = np.searchsorted(reference["borders"][:, k], said)
            shares = np.array([(bins == number).mean() for number in range(DRIFT_BINS)])
            scores[name] = stability_index(shares, np.full(DRIFT_BINS, 1 / DRIFT_BINS))
        return scores

    def tensor_specs(self, names: Sequence[str]) -> list[TensorSpec]:
        """Return `values`, in the order of the names."""
        return [TensorSpec("values", "FP64", len(names))]

    def tensors(self, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, list[Any]]:
        """Return the numbers [N*K]."""
        given = (answer.values or () for answer in cast(Sequence[NumbersAnswer], answers))
        return {"values": [one.value for values in given for one in values]}

    # Evaluation

    def metrics(self, decisions: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return the mean absolute error with its interval, and the other measures."""
        from rootstock.tasks.regression.evaluation import Numbered

        return Numbered(decisions, targets).metrics()

    def errors(self, decisions: np.ndarray, targets: Targets) -> np.ndarray:
        """Return the absolute error of each image, in deviations if there are several numbers."""
        errors = np.abs(decisions - targets.values)
        if errors.shape[1] > 1:
            errors = errors / measures.measure_units(targets.values)[1]
        return np.asarray(errors.mean(axis=1))

    feedback_metric: ClassVar[str] = "mean_absolute_error"

    def answer_text(self, row: Mapping[str, Any]) -> str:
        """Return the numbers, joined by semicolons."""
        return str(row.get("values") or "")

    def judge(self, row: Mapping[str, Any], label: str) -> float:
        """Return the absolute error of the first number."""
        true = numbers.read_numbers(self.correct("", label))
        return abs(float(row["value"]) - next(iter(true.values())))

    def check_promises(self, answers: Sequence[Answer], targets: Targets) -> dict[str, float]:
        """Return the share of intervals with the true number, and their width."""
        inside, widths = [], []
        for answer, row in zip(answers, targets.values.tolist(), strict=True):
            for one, true in zip(cast(NumbersAnswer, answer).values or (), row, strict=True):
                if one.low is None or one.high is None:
                    return {}
                inside.append(one.low <= true <= one.high)
                widths.append(one.high - one.low)
        return {
            "coverage_95": float(np.mean(inside)),
            "interval_width_95": float(np.mean(widths)),
        }

    def report(self, evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
        """Return words, the table of numbers, and two pictures."""
        from rootstock.tasks.regression.evaluation import make_report

        return make_report(evidence, metrics, root)

    def prediction_rows(self, evidence: Evidence) -> list[Sequence[object]]:
        """Return path, and actual and predicted numbers."""
        from rootstock.tasks.regression.evaluation import Numbered

        return Numbered(*evidence).prediction_rows()

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
        from rootstock.tasks.regression.evaluation import compare

        return compare(
            champion,
            challenger,
            targets,
            metric=metric,
            rule=rule,
            min_gain=min_gain,
            lower_is_better=metric in self.lower_is_better,
        )

    def describe(self, names: Sequence[str]) -> str:
        """Return the names of the numbers."""
        return f"Predicts {', '.join(map(escape_markdown, names))} from an image, as a number."

    def describe_quality(
        self,
        metrics: Mapping[str, float],
        rows: Sequence[Mapping[str, str]],
        unknown_share: float,
    ) -> list[str]:
        """Return the mean error, the promises of the answers, and the table of the numbers."""
        from rootstock.tasks.regression.card import describe_quality

        return describe_quality(metrics, rows, unknown_share)

    def describe_limits(self, unknown_share: float) -> list[str]:
        """Return the limits of the answers."""
        from rootstock.tasks.regression.card import describe_limits

        return describe_limits(unknown_share)
