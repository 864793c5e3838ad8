"""The text of the model card for a model of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rootstock.system.escape import markdown_table


def describe_quality(
    metrics: Mapping[str, float], rows: Sequence[Mapping[str, str]], unknown_share: float
) -> list[str]:
    """Return the mean error, the promises of the answers, and the table of the numbers."""
    lines = [
        f"- **The mean absolute error is {metrics['mean_absolute_error']:.4g}** on "
        f"{metrics['n_test']} test images (95 % interval "
        f"{metrics['mean_absolute_error_low']:.4g} to {metrics['mean_absolute_error_high']:.4g}). "
        f"Always predicting the median would give {metrics['error_of_the_median']:.4g}. "
        f"R² is {metrics['r2']:.3f}, Spearman's correlation {metrics['spearman']:.3f}."
    ]
    if "coverage_95" in metrics:
        lines.append(
            f"- It flagged {metrics['unknown_share']:.1%} of the test images as `unknown`; the "
            f"allowed share is {unknown_share:.1%}. Its 95 % intervals contain "
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
    """Return the limits of the answers."""
    lines = ["- The training numbers have a limited range; answers outside of it are not reliable."]
    if unknown_share:
        lines.append(
            "- Most, but not all, images unlike the training images are flagged `unknown`."
        )
    return lines
