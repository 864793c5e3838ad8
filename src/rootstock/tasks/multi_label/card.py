"""The text of the model card for a model with several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rootstock.system.escape import markdown_table

WEAKEST_LABELS = 5
FEW_IMAGES = 20


def describe_quality(
    metrics: Mapping[str, float], rows: Sequence[Mapping[str, str]], unknown_share: float
) -> list[str]:
    """Return the measures, the promises of the answers, and the weakest labels."""
    lines = [
        f"- **Mean average precision {metrics['mean_average_precision']:.3f}** on "
        f"{metrics['n_test']} test images (95 % interval "
        f"{metrics['mean_average_precision_low']:.3f} to "
        f"{metrics['mean_average_precision_high']:.3f}).",
        f"- Decisions: {metrics['micro_precision']:.1%} of the predicted labels are right, and "
        f"{metrics['micro_recall']:.1%} of the true labels are predicted (micro F1 "
        f"{metrics['micro_f1']:.3f}, macro F1 {metrics['macro_f1']:.3f}). All labels of "
        f"{metrics['exact_match']:.1%} of the images are right.",
        f"- Calibration: a stated probability is on average {100 * metrics['ece']:.1f} points away "
        "from how often the label applies.",
    ]
    if "coverage_95" in metrics:
        lines.append(
            f"- It flagged {metrics['unknown_share']:.1%} of the test images as `unknown`; the "
            f"allowed share is {unknown_share:.1%}. "
            f"{metrics['coverage_95']:.1%} of the true labels are among its 95 % possible "
            f"labels, which are {metrics['set_size_95']:.1f} on average."
        )
    tested = [row for row in rows if row["average_precision"]]
    tested.sort(key=lambda row: (float(row["average_precision"]), row["label"]))
    table = [
        (
            row["label"],
            f"{float(row['average_precision']):.3f}",
            f"{float(row['low']):.3f} to {float(row['high']):.3f}",
            row["images"] + (", few" if int(row["images"]) < FEW_IMAGES else ""),
        )
        for row in tested[:WEAKEST_LABELS]
    ]
    header = ("label", "average precision", "95 % interval", "test images")
    untested = [row["label"] for row in rows if not row["average_precision"]]
    note = (
        [f"{len(untested)} labels were not tested, because no test image has them."]
        if untested
        else []
    )
    return [*lines, "", "Weakest labels:", "", *markdown_table(header, table), "", *note]


def describe_limits(unknown_share: float) -> list[str]:
    """Return the limits of the answers."""
    lines = [
        "- The model knows only these labels: an image with none of them gets no label, or wrong "
        "ones."
    ]
    if unknown_share:
        lines.append(
            "- Most, but not all, images unlike the training images are flagged `unknown`."
        )
    return lines
