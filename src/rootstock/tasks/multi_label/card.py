"""What the model card says of a model with several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rootstock.system.escape import markdown_table

WEAKEST_LABELS = 5
FEW_IMAGES = 20


def describe_quality(
    metrics: Mapping[str, float], rows: Sequence[Mapping[str, str]], unknown_share: float
) -> list[str]:
    """Return the measures, what the answers promise, and the weakest labels."""
    lines = [
        f"- **Mean average precision {metrics['mean_average_precision']:.3f}** on "
        f"{metrics['n_test']} test images (95 % interval "
        f"{metrics['mean_average_precision_low']:.3f} to "
        f"{metrics['mean_average_precision_high']:.3f}).",
        f"- Decisions: {metrics['micro_precision']:.1%} of the labels that it says are right, and "
        f"it says {metrics['micro_recall']:.1%} of those that are there (micro F1 "
        f"{metrics['micro_f1']:.3f}, macro F1 {metrics['macro_f1']:.3f}); all labels of "
        f"{metrics['exact_match']:.1%} of the images are right.",
        f"- Calibration: a stated probability is on average {100 * metrics['ece']:.1f} points away "
        "from how often the label applies.",
    ]
    if "coverage_95" in metrics:
        lines.append(
            f"- It called {metrics['unknown_share']:.1%} of the test images unknown; "
            f"{unknown_share:.1%} of images like them were allowed for. "
            f"{metrics['coverage_95']:.1%} of the labels that apply are among its 95 % possible "
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
        [f"Not tested, since no test image has them: {len(untested)} labels."] if untested else []
    )
    return [*lines, "", "Weakest labels:", "", *markdown_table(header, table), "", *note]


def describe_limits(unknown_share: float) -> list[str]:
    """Return what the answers do not cover."""
    lines = [
        "- It knows no other labels: an image that shows none of them gets no label, or wrong ones."
    ]
    if unknown_share:
        lines.append(
            "- Most, but not all, images unlike the training images are flagged `unknown`."
        )
    return lines
