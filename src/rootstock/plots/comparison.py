"""Pictures of two models on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rootstock.plots.style import BLUE, GRID, ORANGE, canvas, display_names, headline

MAX_CLASSES = 30
"""Maximum classes drawn."""


def plot_recalls(
    classes: Sequence[tuple[str, float, float]],
    names: tuple[str, str],
    path: Path,
) -> None:
    """Draw (class, recall of the first, recall of the second), one row per class, as given."""
    shown = list(classes[:MAX_CLASSES])
    labels = display_names([label for label, _, _ in shown])
    before, after = (np.array([row[i] for row in shown]) for i in (1, 2))
    places = np.arange(len(shown))
    with canvas(path, width=7.0, height=1.5 + 0.26 * max(2, len(shown))) as figure:
        axes = figure.add_subplot()
        axes.hlines(places, before, after, color=GRID, linewidth=5, zorder=1)
        axes.scatter(before, places, s=42, color=BLUE, label=names[0], zorder=3)
        axes.scatter(after, places, s=42, color=ORANGE, label=names[1], marker="D", zorder=2)
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("share of right answers in the class")
        axes.grid(axis="x")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        more = f"; {MAX_CLASSES} of {len(classes)} classes" if len(classes) > MAX_CLASSES else ""
        headline(axes, "Recall by class", f"largest change first{more}")
