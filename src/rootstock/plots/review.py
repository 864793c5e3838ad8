"""Pictures of the review: the learning curve, and the images in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rootstock.plots.style import (
    BLUE,
    INK,
    ORANGE,
    PALETTE,
    QUIET,
    RED,
    canvas,
    display_names,
    headline,
    write_note,
)

MARKERS = ("o", "^", "s", "D", "v", "P")
"""Colours and markers, each for as many classes as there are colours."""
MAX_NAMED, NAMED_PER_COLUMN = len(MARKERS) * len(PALETTE), 21
"""Maximum classes in the map's legend."""

Point = tuple[int, float, float, float]
"""Training images, accuracy, and the low and high end of its range."""


def plot_learning_curve(
    measured: Sequence[Point],
    extrapolated: Sequence[Point],
    path: Path,
    *,
    ceiling: float,
    targets: Sequence[float],
    score_name: str = "accuracy",
) -> None:
    """Draw the score of a head over the number of training images; extrapolation is dashed."""
    with canvas(path, width=7.0, height=4.0) as figure:
        axes = figure.add_subplot()
        for points, style in ((measured, "-"), ([measured[-1], *extrapolated], "--")):
            counts, middle, low, high = np.array(points).T
            axes.fill_between(counts, low, high, color=BLUE, alpha=0.12, linewidth=0)
            axes.plot(counts, middle, style, color=BLUE, marker="o", markersize=4.5)
        axes.axhline(ceiling, color=ORANGE, linewidth=1.2)
        look = {"xycoords": ("axes fraction", "data"), "color": ORANGE, "va": "center"}
        write_note(axes, f"ceiling {ceiling:.3f}", (1.0, ceiling), (4, 0), **look)
        for target in targets:
            axes.axhline(target, color=QUIET, linewidth=0.8, linestyle=":")
        counts = [point[0] for point in (*measured, *extrapolated)]
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()
        axes.set(xlabel="training images", ylabel=f"{score_name} of a head")
        axes.grid(axis="y")
        headline(axes, "Learning curve", "dashed: extrapolated; dotted: targets; shade: 80 % range")


def plot_feature_map(
    features: np.ndarray,
    labels: Sequence[str],
    path: Path,
    *,
    marked: Sequence[int] = (),
) -> None:
    """Draw features [N,C] on their two principal components, rows ``marked`` with a ring."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    components = np.linalg.svd(centred, full_matrices=False)[2][:2]
    # The sign of a component is arbitrary; it is fixed so that the picture is reproducible.
    components *= np.sign(components[np.arange(2), np.abs(components).argmax(axis=1)])[:, None]
    places = centred @ components.T
    classes = sorted(set(labels))
    names = display_names(classes)
    kinds = np.array([classes.index(label) for label in labels])
    columns = -(-min(len(classes), MAX_NAMED) // NAMED_PER_COLUMN)
    with canvas(path, width=7.0 + 2.0 * (columns - 1), height=5.0) as figure:
        axes = figure.add_subplot()
        for number, name in enumerate(names):
            own = places[kinds == number]
            axes.scatter(
                own[:, 0],
                own[:, 1],
                s=16,
                color=PALETTE[number % len(PALETTE)],
                marker=MARKERS[number // len(PALETTE) % len(MARKERS)],
                alpha=0.65,
                linewidths=0,
                label=name if number < MAX_NAMED else None,
            )
        if len(marked):
            ringed = places[list(marked)]
            axes.scatter(
                ringed[:, 0],
                ringed[:, 1],
                s=60,
                facecolors="none",
                edgecolors=RED,
                linewidths=1.0,
                label="doubtful label",
            )
        axes.set(xticks=[], yticks=[])
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            labelcolor=INK,
            ncols=columns,
        )
        more = f"; {MAX_NAMED} of {len(classes)} classes named" if len(classes) > MAX_NAMED else ""
        headline(axes, "Features of the images", f"two principal components{more}")
