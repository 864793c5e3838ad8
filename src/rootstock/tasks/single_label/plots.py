"""Pictures of a model on its test images: confusions and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rootstock.plots.style import (
    BLUE,
    INK,
    ORANGE,
    QUIET,
    RED,
    blues,
    canvas,
    display_names,
    headline,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED = 40  # classes whose names are still readable next to the matrix
MAX_COUNTED = 20  # classes whose counts are still readable in the cells
BINS = 15


def plot_confusion(confusion: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw int64 [K, K] counts, rows actual and columns predicted, coloured by share of the row.

    With up to 40 classes the axes have names; with more, the picture shows the whole matrix and a
    list of the most frequent confusions next to it.
    """
    n = len(classes)
    side = float(np.clip(0.42 * n, 2.4, 9.0))
    beside = n > MAX_NAMED
    width, height = (14.0, 8.2) if beside else (side + 3.4, side + 2.4)
    with canvas(path, width=width, height=height) as figure:
        if beside:
            axes, listing = figure.subplots(1, 2, width_ratios=(1.9, 1))
            _most_confused(listing, confusion, classes)
        else:
            axes = figure.add_subplot()
        totals = confusion.sum(axis=1, keepdims=True)
        share = np.ma.masked_where(
            np.broadcast_to(totals == 0, confusion.shape), confusion / np.maximum(totals, 1)
        )
        image = axes.imshow(share, cmap=blues(), vmin=0, vmax=1, interpolation="nearest")
        bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02, aspect=28, shrink=0.85)
        bar.set_label("share of the actual class")
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        bar.outline.set_visible(False)  # type: ignore[operator]
        axes.set(xlabel="predicted", ylabel="actual")
        absent = int((totals == 0).sum())
        right, of = int(np.trace(confusion)), int(confusion.sum())
        subtitle = f"{right:,} of {of:,} right" + (
            f"; grey: {absent} classes without test images" if absent else ""
        )
        headline(axes, "Confusion matrix", subtitle)
        _name_cells(axes, confusion, share, classes)


def plot_reliability(
    confidences: np.ndarray, correct: np.ndarray, path: Path, *, ece: float
) -> None:
    """Draw how often the model is right at each stated confidence.

    Args:
        confidences: float [N], the probability of the predicted class.
        correct: bool [N], whether that class was the actual one.
        ece: expected calibration error over 15 equal bins (Guo et al., 2017).
    """
    edges = np.linspace(0, 1, BINS + 1)
    # The bins are open at the left, as in the definition of ECE.
    where = np.clip(np.ceil(np.asarray(confidences) * BINS).astype(int) - 1, 0, BINS - 1)
    number = np.bincount(where, minlength=BINS)
    right = np.bincount(where, weights=np.asarray(correct, float), minlength=BINS)
    used = number > 0
    rate = right[used] / number[used]
    centre = (edges[:-1] + edges[1:])[used] / 2
    with canvas(path, width=6.8, height=5.6) as figure:
        upper, lower = figure.subplots(2, 1, height_ratios=(3.2, 1), sharex=True)
        upper.bar(centre, rate, 0.92 / BINS, color=BLUE, label="share of right answers")
        sums = np.bincount(where, weights=np.asarray(confidences, float), minlength=BINS)
        stated = sums[used] / number[used]
        for x, said, was in zip(centre, stated, rate, strict=True):
            half = 0.46 / BINS
            upper.plot([x - half, x + half], [said, said], color=ORANGE, linewidth=2.4)
            upper.plot([x, x], [said, was], color=ORANGE, linewidth=1, linestyle=":")
        upper.plot([], [], color=ORANGE, linewidth=2.4, label="mean confidence")
        upper.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", zorder=0)
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
        upper.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        headline(upper, "Calibration", f"expected calibration error {ece:.3f}; lower is better")
        lower.bar((edges[:-1] + edges[1:]) / 2, number, 0.92 / BINS, color="#A9B8C4")
        lower.set(xlabel="confidence of the prediction", ylabel="images")
        for axes in (upper, lower):
            axes.grid(axis="y")


def _name_cells(
    axes: Axes, confusion: np.ndarray, share: np.ndarray, classes: Sequence[str]
) -> None:
    n = len(classes)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    if n > MAX_NAMED:
        return
    names = display_names(classes)
    size = 9.0 if n <= MAX_COUNTED else 7.0
    axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(n), names, fontsize=size)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#DCE3E8", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    if n > MAX_COUNTED:
        return
    for row, column in zip(*np.nonzero(confusion), strict=True):
        dark = share[row, column] > 0.55
        axes.text(
            column,
            row,
            f"{confusion[row, column]:,}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else INK,
        )


def most_confused(confusion: np.ndarray, *, limit: int) -> list[tuple[int, int, int]]:
    """Return the most frequent confusions, in order, as (actual, predicted, count)."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = (divmod(int(cell), len(wrong)) for cell in order)
    return [(a, p, int(wrong[a, p])) for a, p in pairs if wrong[a, p]]


def _most_confused(axes: Axes, confusion: np.ndarray, classes: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    pairs = most_confused(confusion, limit=24)
    names = display_names(classes, limit=20)
    axes.barh(range(len(pairs)), [count for *_, count in pairs], 0.68, color=RED)
    axes.set_yticks(range(len(pairs)), [f"{names[a]} → {names[p]}" for a, p, _ in pairs])
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_ylim(23.6, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("test images")
    axes.grid(axis="x")
    headline(axes, "Most frequent confusions", "actual → predicted")
