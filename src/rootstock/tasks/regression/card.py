"""What the model card says of a model of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rootstock.system.escape import markdown_table


def describe_quality(
    metrics: Mapping[str, float], rows: Sequence[Mapping[str, str]], unknown_share: float
) -> list[str]:
    """Return the mean error, what the answers promise, and the table of the numbers."""
    lines = [
        f"- **The answers are off by {metrics['mean_absolute_error']:.4g} on average** on "
        f"{metrics['n_test']} test images (mean absolute error; 95 % interval "
        f"{metrics['mean_absolute_error_low']:.4g} to {metrics['mean_absolute_error_high']:.4g}); "
        f"always answering the median would be off by {metrics['error_of_the_median']:.4g}. "
        f"R² {metrics['r2']:.3f}, Spearman's correlation {metrics['spearman']:.3f}."
    ]
    if "coverage_95" in metrics:
        lines.append(
            f"- It called {metrics['unknown_share']:.1%} of the test images unknown; "
            f"{unknown_share:.1%} of images like them were allowed for. Its 95 % intervals hold "
            f"{metrics['coverage_95']:.1%} of the true numbers."
        )
    if len(rows) < 2:
        return lines
    table = [
        (row["name"], *(f"{float(row[key]):.4g}" for key in ("mean_absolute_error", "rmse", "r2")))
        for row in rows
    ]
    header = ("number", "mean absolute error", "RMSE", "R²")
    return [*lines, "", *markdown_table(header, table), ""]


def describe_limits(unknown_share: float) -> list[str]:
    """Return what the answers do not cover."""
    lines = [
        "- It was trained on numbers of a certain range, and answers outside of it mean little."
    ]
    if unknown_share:
        lines.append(
            "- Most, but not all, images unlike the training images are flagged `unknown`."
        )
    return lines
