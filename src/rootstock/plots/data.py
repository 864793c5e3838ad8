"""Pictures of the data: how many images of which class, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rootstock.plots.style import (
    BLUE,
    INK,
    ORANGE,
    QUIET,
    SPLIT_COLOURS,
    canvas,
    display_names,
    headline,
    write_note,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS = 40
MAX_EVEN_TICKS = 4


def plot_class_counts(counts: Mapping[str, Mapping[str, int]], path: Path) -> None:
    """Draw the images of each class by split.

    Args:
        counts: class -> {"train": n, "val": n, "test": n}. Up to 40 classes get a bar each;
            more are ranked by size, and the largest and smallest are named.
    """
    table = np.array(
        [[counts[name].get(split, 0) for split in SPLIT_COLOURS] for name in counts], dtype=int
    ).reshape(-1, len(SPLIT_COLOURS))
    totals = table.sum(axis=1)
    least, most = totals.min(), totals.max()
    each = f"{most:,} per class" if least == most else f"{least:,} to {most:,} per class"
    subtitle = f"{totals.sum():,} usable images in {len(counts)} classes; {each}"
    if len(counts) <= MAX_BARS:
        _bars(list(counts), table, path, subtitle)
    else:
        _ranked(list(counts), table, path, subtitle)


def plot_image_sizes(
    widths: Sequence[int], heights: Sequence[int], path: Path, *, input_size: int | None = None
) -> None:
    """Draw width against height, and a histogram of the short side, in pixels.

    Args:
        input_size: the network's input side, drawn for comparison.
    """
    from matplotlib.ticker import MaxNLocator

    wide, high = np.asarray(widths, float), np.asarray(heights, float)
    short = np.minimum(wide, high)
    with canvas(path, width=9.0, height=3.9) as figure:
        left, right = figure.subplots(1, 2)
        low, top = min(wide.min(), high.min()) * 0.8, max(wide.max(), high.max()) * 1.25
        left.plot([low, top], [low, top], color="#C9D1D8", linewidth=1, zorder=1)
        # Many points overlap; equal sizes are common, so the area shows their number.
        # One number per pair: numpy sorts 100,000 pairs in a third of a second.
        pairs = (wide.astype(np.int64) << 32) + high.astype(np.int64)
        sizes, number = np.unique(pairs, return_counts=True)
        points = np.stack([sizes >> 32, sizes & 0xFFFF_FFFF]).astype(float)
        area = 10 + 220 * np.sqrt(number / max(number.max(), 20))
        left.scatter(*points, s=area, color=BLUE, alpha=0.45, linewidths=0.4, edgecolors="white")
        left.set(xscale="log", yscale="log", xlim=(low, top), ylim=(low, top), aspect="equal")
        left.set(xlabel="width in pixels", ylabel="height in pixels")
        common = f"most common {points[0, number.argmax()]:.0f} x {points[1, number.argmax()]:.0f}"
        headline(left, "Image sizes", f"{points.shape[1]:,} different; {common}")
        edges = np.geomspace(short.min() * 0.97, short.max() * 1.03, 31)
        right.hist(short, bins=edges.tolist(), color=BLUE)
        right.set(xscale="log", xlabel="short side in pixels", ylabel="images")
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
        smaller = ""
        if input_size:
            right.axvline(input_size, color=ORANGE)
            look = {"xycoords": ("data", "axes fraction"), "color": INK, "fontsize": 8.5}
            write_note(right, f" input {input_size}", (input_size, 1), (0, 0), va="top", **look)
            share = float((short < input_size).mean())
            smaller = f"; {share:.0%} smaller than the input of {input_size}"
        headline(right, "Short side", f"median {np.median(short):.0f}{smaller}")
        for axes in (left, right):
            _plain_log_ticks(axes)


def _plain_log_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    plain = FuncFormatter(lambda value, _: f"{value:,.0f}")
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() == "log":
            axis.set_major_locator(FixedLocator(log_ticks(*limits)))
            axis.set_major_formatter(plain)
            axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[int]:
    """Return whole numbers to mark between ``low`` and ``high``: 1, 2, 5, 10, ...

    A range with fewer than two of these is marked evenly, without repeated numbers.
    """
    from matplotlib.ticker import MaxNLocator

    decades = range(int(np.floor(np.log10(max(low, 1)))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10**decade for decade in decades for step in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    if len(inside) >= 2:
        return inside
    even = MaxNLocator(MAX_EVEN_TICKS, integer=True, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [int(tick) for tick in even if low <= tick <= high]


def _bars(names: list[str], table: np.ndarray, path: Path, subtitle: str) -> None:
    rows = np.arange(len(names))
    with canvas(path, width=7.5, height=0.28 * len(names) + 1.3) as figure:
        axes = figure.add_subplot()
        start = np.zeros(len(names))
        for column, (split, colour) in enumerate(SPLIT_COLOURS.items()):
            axes.barh(rows, table[:, column], 0.72, left=start, color=colour, label=split)
            start += table[:, column]
        for row, total in enumerate(start):
            write_note(axes, f"{total:,.0f}", (total, row), (4, 0), va="center")
        axes.set_yticks(rows, display_names(names))
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="images")
        axes.margins(x=0.09)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1.0), borderaxespad=0.2)
        headline(axes, "Images by class", subtitle)


def _ranked(names: list[str], table: np.ndarray, path: Path, subtitle: str) -> None:
    order = np.argsort(-table.sum(axis=1), kind="stable")
    labels = display_names(names)
    rank = np.arange(len(order))
    with canvas(path, width=9.0, height=4.6) as figure:
        axes = figure.add_subplot()
        start = np.zeros(len(order))
        for column, (split, colour) in enumerate(SPLIT_COLOURS.items()):
            axes.bar(rank, table[order, column], 1.0, bottom=start, color=colour, label=split)
            start += table[order, column]
        axes.set(xlim=(-0.5, len(order) - 0.5), xlabel="classes, largest first", ylabel="images")
        axes.set_ylim(0, start.max() * 1.12)
        axes.grid(axis="y")
        axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1.0), borderaxespad=0.2)
        totals = table.sum(axis=1)
        ends = [
            f"{title}: " + ", ".join(f"{labels[i]} ({totals[i]:,})" for i in chosen)
            for title, chosen in (("largest", order[:4]), ("smallest", order[:-5:-1]))
        ]
        headline(axes, "Images by class", subtitle)
        figure.supxlabel("\n".join(ends), fontsize=8.5, color=QUIET, x=0.01, ha="left")
