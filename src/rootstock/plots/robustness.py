"""Pictures of how easily a model is fooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rootstock.plots.sheet import plot_captioned_tiles
from rootstock.plots.style import PALETTE, QUIET, canvas, headline

GAIN = 16
"""Magnification of the differences."""


def plot_curves(
    curves: Mapping[str, Sequence[float]],
    clean: float,
    path: Path,
    *,
    titles: tuple[str, str],
    ticks: Sequence[object],
    xlabel: str,
    ylabel: str,
) -> None:
    """Draw one line per name, all starting at ``clean``."""
    with canvas(path, width=7.6, height=4.4) as figure:
        axes = figure.add_subplot()
        positions = range(len(ticks) + 1)
        for colour, (name, values) in zip((*PALETTE, QUIET), curves.items(), strict=False):
            axes.plot(positions, [clean, *values], color=colour, marker="o", label=name)
        axes.axhline(clean, color=QUIET, linewidth=1, linestyle=":")
        axes.set_xticks(list(positions), ["none", *map(str, ticks)])
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        headline(axes, *titles)


def plot_examples(
    examples: Sequence[tuple[np.ndarray, np.ndarray, str, str, int]], path: Path
) -> None:
    """Draw (before, after, said, says, radius) as three pictures each, the difference in between.

    Pictures are uint8[S,S,3]; the difference is enlarged 16 times around grey.
    """
    tiles = []
    for before, after, said, says, radius in examples:
        difference = 128 + GAIN * (after.astype(int) - before)
        tiles += [
            (before, said, ""),
            (np.clip(difference, 0, 255).astype(np.uint8), f"difference x {GAIN}", ""),
            (after, f"at most {radius} of 255", f"answered {says}"),
        ]
    about = "the smallest change by PGD that makes a right answer wrong"
    plot_captioned_tiles(tiles, path, headlines=("Adversarial images", about))
