"""The evaluation of numbers as a report: text, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from rootstock.metrics import draw_counts, percentile_interval
from rootstock.plots.sheet import plot_captioned
from rootstock.system.escape import markdown_table
from rootstock.tasks.comparison import Comparison, compare_scores
from rootstock.tasks.metric_words import list_metrics
from rootstock.tasks.regression import measures
from rootstock.tasks.regression.plots import plot_predicted
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import PICTURE_FOLDER, Evidence, Picture, Report

MAX_WORST = 24


@dataclass(frozen=True)
class Numbered:
    """N test images: predicted numbers [N,K], their targets and paths."""

    decisions: np.ndarray
    targets: Targets
    paths: Sequence[str] = ()

    @cached_property
    def errors(self) -> np.ndarray:
        """Absolute errors float64[N,K]."""
        return np.abs(self.decisions.astype(np.float64) - self.targets.values)

    @cached_property
    def drawn_errors(self) -> np.ndarray:
        """Mean absolute errors float64[R,K] in draws of whole groups of the images."""
        return mean_errors(self.errors, draw_counts(self.targets.groups, len(self.targets)))

    def metrics(self) -> dict[str, float]:
        """Return the test metrics, the headline first."""
        values = self.targets.values
        low, high = percentile_interval(self.drawn_errors.mean(axis=1))
        guess = np.abs(values - np.median(values, axis=0)).mean()
        return {
            "mean_absolute_error": float(self.errors.mean()),
            "mean_absolute_error_low": low,
            "mean_absolute_error_high": high,
            "root_mean_squared_error": float(np.sqrt(np.square(self.errors).mean(axis=0)).mean()),
            "r2": measures.explained_share(self.decisions, values),
            "spearman": measures.rank_correlation(self.decisions, values),
            "error_of_the_median": float(guess),
        }

    def name_rows(self) -> list[Sequence[object]]:
        """Return the rows of per_class.csv, its header first."""
        rows: list[Sequence[object]] = [
            ("name", "mean_absolute_error", "low", "high", "rmse", "r2", "spearman", "images")
        ]
        for k, name in enumerate(self.targets.names):
            said, true = self.decisions[:, k : k + 1], self.targets.values[:, k : k + 1]
            numbers = (
                float(self.errors[:, k].mean()),
                *percentile_interval(self.drawn_errors[:, k]),
                float(np.sqrt(np.square(self.errors[:, k]).mean())),
                measures.explained_share(said, true),
                measures.rank_correlation(said, true),
            )
            rows.append((name, *(round(number, 6) for number in numbers), len(true)))
        return rows

    def worst(self) -> list[int]:
        """Return the indices of the images with the largest errors, the worst first."""
        scale = np.maximum(self.errors.mean(axis=0), 1e-12)
        return [int(i) for i in np.argsort(-(self.errors / scale).max(axis=1), kind="stable")]

    def prediction_rows(self) -> list[Sequence[object]]:
        """Return the rows of predictions.csv, its header first."""
        names = self.targets.names
        header = [f"{what} {name}" for name in names for what in ("actual", "predicted")]
        rows: list[Sequence[object]] = [("path", *header)]
        for path, said, true in zip(self.paths, self.decisions, self.targets.values, strict=True):
            cells = [f"{value:.6g}" for pair in zip(true, said, strict=True) for value in pair]
            rows.append((path, *cells))
        return rows


def mean_errors(errors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of errors [N,K] in each draw [R,N], float64[R,K]."""
    sums = weights.astype(np.float64) @ errors
    return np.asarray(sums / weights.sum(axis=1, keepdims=True))


def compare(
    champion: np.ndarray,
    challenger: np.ndarray,
    targets: Targets,
    *,
    metric: str,
    rule: str,
    min_gain: float,
    lower_is_better: bool,
) -> Comparison:
    """Compare the numbers [N,K] of two models; the interval is a paired bootstrap of groups."""
    values = targets.values.astype(np.float64)

    def score(decisions: np.ndarray, weights: np.ndarray) -> np.ndarray:
        errors = decisions.astype(np.float64) - values
        if metric == "mean_absolute_error":
            return mean_errors(np.abs(errors), weights).mean(axis=1)
        squared = mean_errors(np.square(errors), weights)
        if metric == "root_mean_squared_error":
            return np.asarray(np.sqrt(squared).mean(axis=1))
        mean = mean_errors(values, weights)
        spread = np.maximum(mean_errors(np.square(values), weights) - np.square(mean), 1e-12)
        return np.asarray((1 - squared / spread).mean(axis=1))

    weights, whole = draw_counts(targets.groups, len(targets)), np.ones((1, len(targets)))
    return compare_scores(
        metric,
        (score(champion, whole), score(champion, weights)),
        (score(challenger, whole), score(challenger, weights)),
        rule=rule,
        min_gain=min_gain,
        count=len(targets),
        lower_is_better=lower_is_better,
    )


def make_report(evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
    """Return evaluation.md, per_class.csv and two pictures."""
    images = Numbered(evidence.decisions, evidence.targets, evidence.paths)
    names, rows = images.targets.names, images.name_rows()
    worst = images.worst()[:MAX_WORST]
    items = [
        (
            images.paths[i],
            ", ".join(f"{value:.5g}" for value in images.targets.values[i]),
            "→ " + ", ".join(f"{value:.5g}" for value in images.decisions[i]),
        )
        for i in worst
    ]
    headlines = ("Worst errors", f"the {len(items)} of {len(images.paths):,} test images")
    pictures = [
        Picture(
            "predicted.png",
            partial(
                plot_predicted,
                images.decisions,
                images.targets.values,
                names,
                errors=[float(error) for error in images.errors.mean(axis=0)],
            ),
        ),
        Picture("worst.png", partial(plot_captioned, items, root=root, headlines=headlines)),
    ]
    return Report(_render(metrics, rows, items), rows, pictures)


def _render(
    values: Mapping[str, float],
    rows: Sequence[Sequence[object]],
    worst: Sequence[tuple[str, str, str]],
) -> str:
    lines = [
        "# Evaluation on the test split",
        "",
        f"**The mean absolute error is {values['mean_absolute_error']:.4g}** on "
        f"{values['n_test']} test images (95 % interval "
        f"{values['mean_absolute_error_low']:.4g} to {values['mean_absolute_error_high']:.4g}, "
        f"bootstrap). Always predicting the median would give "
        f"{values['error_of_the_median']:.4g}.",
        "",
        *markdown_table(
            ("measure", "value"),
            list_metrics(values),
        ),
        "",
        f"![Predicted and true numbers]({PICTURE_FOLDER}/predicted.png)",
        "",
        "## Numbers",
        "",
        *markdown_table(
            ("number", "mean absolute error", "95 % interval", "RMSE", "R²", "Spearman"),
            [
                (row[0], *(f"{row[i]:.4g}" for i in (1,)), f"{row[2]:.4g} to {row[3]:.4g}")
                + tuple(f"{row[i]:.4g}" for i in (4, 5, 6))
                for row in rows[1:]
            ],
        ),
        "",
        "## Worst errors",
        "",
        *markdown_table(
            ("image", "is", "predicted"), [(path, is_, said[2:]) for path, is_, said in worst]
        ),
        "",
        f"![Worst errors]({PICTURE_FOLDER}/worst.png)",
    ]
    return "\n".join(lines) + "\n"
