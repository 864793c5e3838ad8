"""The text of the model card for a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rootstock.metrics import wilson_interval
from rootstock.system.escape import escape_markdown

WEAKEST_CLASSES = 5
"""Classes listed in the card."""
FEW_IMAGES = 20
"""With fewer test images of a class the card marks its recall."""


def describe_quality(
    metrics: Mapping[str, float], rows: Sequence[Mapping[str, str]], unknown_share: float
) -> list[str]:
    """Return accuracy, calibration, the promises of the answers, and the weakest classes.

    ``rows`` are those of per_class.csv.
    """
    return [
        f"- **{metrics['accuracy']:.1%} of {metrics['n_test']} test images are right** "
        f"(95 % interval {metrics['accuracy_low']:.1%} to {metrics['accuracy_high']:.1%}, "
        f"Wilson). The balanced accuracy is {metrics['balanced_accuracy']:.1%}, "
        f"macro F1 is {metrics['macro_f1']:.3f}.",
        f"- Calibration: a stated probability is on average {100 * metrics['ece']:.1f} points "
        "away from how often the answer is right.",
        _describe_promises(metrics, unknown_share),
        "",
        "Weakest classes:",
        "",
        "| class | right | 95 % interval | test images |",
        "| --- | --- | --- | --- |",
        *_describe_weakest(rows),
    ]


def describe_limits(unknown_share: float) -> list[str]:
    """Return what happens to an image of none of the classes."""
    if unknown_share:
        return [
            "- An image of none of the classes still gets one of their labels. Most, but not all, "
            "images unlike the training images are flagged `unknown`."
        ]
    return ["- An image of none of the classes gets one of their labels, without a warning."]


def _describe_promises(metrics: Mapping[str, float], unknown_share: float) -> str:
    if "coverage_95" not in metrics:
        return "- The model has no reference, so it cannot flag unknown images."
    return (
        f"- It flagged {metrics['unknown_share']:.1%} of the test images as `unknown`; the "
        f"allowed share is {unknown_share:.1%}. Its 95 % prediction sets contain the right class "
        f"for {metrics['coverage_95']:.1%} of the images, with "
        f"{metrics['set_size_95']:.1f} classes on average."
    )


def _describe_weakest(rows: Sequence[Mapping[str, str]]) -> list[str]:
    lines = []
    classes = [(row["class"], float(row["recall"]), int(row["images"])) for row in rows]
    for label, recall, images in sorted(classes, key=lambda one: (one[1], one[0]))[
        :WEAKEST_CLASSES
    ]:
        if not images:
            lines.append(f"| {escape_markdown(label)} | not measured | | 0 |")
            continue
        low, high = wilson_interval(round(recall * images), images)
        few = ", few" if images < FEW_IMAGES else ""
        interval = f"{low:.1%} to {high:.1%}"
        name = escape_markdown(label)
        lines.append(f"| {name} | {recall:.1%} | {interval} | {images}{few} |")
    return lines
