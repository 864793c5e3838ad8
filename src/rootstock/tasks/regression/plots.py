"""Pictures of numbers on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rootstock.plots.style import BLUE, QUIET, canvas, display_names, headline

MAX_PANELS = 6


def plot_predicted(
    decisions: np.ndarray,
    values: np.ndarray,
    names: Sequence[str],
    path: Path,
    *,
    errors: Sequence[float],
) -> None:
    """Draw predicted over true numbers [N,K], a panel for each; ``errors`` are the mean ones."""
    shown = min(len(names), MAX_PANELS)
    columns = min(3, shown)
    rows = -(-shown // columns)
    labels = display_names(names)
    with canvas(path, width=0.6 + 4.2 * columns, height=0.4 + 4.2 * rows) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, k in zip(panels, range(shown), strict=False):
            true, said = values[:, k], decisions[:, k]
            low, high = min(true.min(), said.min()), max(true.max(), said.max())
            margin = 0.04 * (high - low) or 1.0
            ends = (low - margin, high + margin)
            axes.plot(ends, ends, color=QUIET, linewidth=1)
            axes.plot(true, said, "o", color=BLUE, markersize=4, alpha=0.6, markeredgewidth=0)
            axes.set(xlim=ends, ylim=ends, xlabel="true", ylabel="predicted", aspect="equal")
            axes.grid(axis="both")
            headline(axes, labels[k], f"mean absolute error {errors[k]:.3g}")
        for axes in panels[shown:]:
            axes.axis("off")
