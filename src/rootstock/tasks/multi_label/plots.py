"""Pictures of several labels on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rootstock.plots.style import BLUE, INK, PALETTE, QUIET, canvas, display_names, headline

MAX_CURVES = 7
"""With more curves one picture is unreadable, so the weakest labels are drawn."""
MAX_BARS = 40


def plot_precision_recall(
    probabilities: np.ndarray,
    present: np.ndarray,
    chosen: np.ndarray,
    names: Sequence[str],
    path: Path,
) -> None:
    """Draw precision over recall of the weakest labels [N,K]; a dot is the model's threshold."""
    from rootstock.tasks.multi_label.measures import Counts, label_precisions

    averages = label_precisions(probabilities, present)[0]
    tested = np.flatnonzero(np.isfinite(averages))
    shown = tested[np.argsort(averages[tested], kind="stable")][:MAX_CURVES]
    labels = display_names(names)
    counts = Counts.of(chosen, present)
    with canvas(path, width=7.4, height=4.6) as figure:
        axes = figure.add_subplot()
        for colour, k in zip(PALETTE, shown, strict=False):
            order = np.argsort(-probabilities[:, k], kind="stable")
            hits = np.cumsum(present[order, k])
            recall, precision = hits / hits[-1], hits / np.arange(1, len(order) + 1)
            name = f"{labels[k]}  {averages[k]:.2f}"
            axes.plot(recall, precision, color=colour, label=name)
            point = (counts.recall[0, k], counts.precision[0, k])
            axes.plot(*point, "o", color=colour, markersize=6, markeredgecolor="white")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.04))
        axes.grid(axis="both")
        if len(shown):
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="average precision")
        which = "all tested labels" if len(shown) == len(tested) else f"the {len(shown)} weakest"
        headline(axes, "Precision and recall", f"{which}; dots: the thresholds of the model")


def plot_label_precisions(rows: Sequence[Sequence[object]], path: Path) -> None:
    """Draw the average precision of each label with its interval, the weakest first.

    ``rows`` are those of per_class.csv without the header.
    """
    tested = [row for row in rows if row[1] != ""]
    tested.sort(key=lambda row: float(str(row[1])))
    tested = tested[:MAX_BARS]
    names = display_names([str(row[0]) for row in tested], limit=26)
    places = np.arange(len(tested))
    with canvas(path, width=6.6, height=1.3 + 0.27 * max(1, len(tested))) as figure:
        axes = figure.add_subplot()
        values = np.array([float(str(row[1])) for row in tested])
        axes.barh(places, values, 0.66, color=BLUE)
        for place, row in zip(places, tested, strict=True):
            axes.plot([float(str(row[2])), float(str(row[3]))], [place] * 2, color=INK, linewidth=1)
            axes.text(1.015, float(place), f"{row[7]}", va="center", fontsize=8, color=QUIET)
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 1), xlabel="average precision")
        axes.set_ylim(len(tested) - 0.4, -0.6)
        axes.grid(axis="x")
        headline(axes, "Labels", "lines: 95 % intervals; right: test images with the label")
