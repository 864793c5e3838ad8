"""What the model card says of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rootstock.metrics import wilson_interval
from rootstock.system.escape import escape_markdown

WEAKEST_CLASSES = 5
"""Classes that the card shows."""
FEW_IMAGES = 20
"""With fewer test images of a class its recall says little."""


def describe_quality(
    metrics: Mapping[str, float], rows: Sequence[Mapping[str, str]], unknown_share: float
) -> list[str]:
    """Return accuracy, calibration, what the answers promise, and the weakest classes.

    ``rows`` are those of per_class.csv.
    """
    return [
        f"- **{metrics['accuracy']:.1%} of {metrics['n_test']} test images are right** "
        f"(95 % interval {metrics['accuracy_low']:.1%} to {metrics['accuracy_high']:.1%}, "
        f"Wilson); balanced accuracy {metrics['balanced_accuracy']:.1%}, "
        f"macro F1 {metrics['macro_f1']:.3f}.",
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
            "- An image of none of the classes gets one of their labels all the same; "
            "`unknown` is said of most images that are unlike all training images, not of "
            "every one."
        ]
    return ["- An image of none of the classes gets one of their labels, and no warning."]


def _describe_promises(metrics: Mapping[str, float], unknown_share: float) -> str:
    if "coverage_95" not in metrics:
        return "- It keeps no reference, and cannot say what it does not know."
    return (
        f"- It called {metrics['unknown_share']:.1%} of the test images unknown; "
        f"{unknown_share:.1%} of images like them were allowed for. Its 95 % "
        f"prediction sets hold the right class of {metrics['coverage_95']:.1%}, with "
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
