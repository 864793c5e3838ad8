"""Pictures of training: distance of the data, quality of each depth, and progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rootstock.plots.style import (
    BLUE,
    INK,
    ORANGE,
    PALETTE,
    canvas,
    headline,
    shorten,
    write_note,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LINES = len(PALETTE)


def plot_training_curves(
    curves: Mapping[str, Sequence[float]], path: Path, *, metric: str, best: str = ""
) -> None:
    """Draw a validation metric per epoch, one line per trial; the best trial is thick.

    Args:
        curves: trial -> values after epoch 1, 2, ...; a value may be NaN.
        best: the trial that was kept.
    """
    from matplotlib.ticker import MaxNLocator

    with canvas(path, width=7.5, height=4.2) as figure:
        axes = figure.add_subplot()
        others = [name for name in curves if name != best][: MAX_LINES - 1]
        for name in [name for name in curves if name not in (*others, best)]:
            _line(axes, curves[name], color="#CBD3DA", linewidth=1.0, zorder=1)
        colours = iter(PALETTE[1:])
        if best in curves:
            label = f"{shorten(best, 34)} (kept)"
            _line(axes, curves[best], color=BLUE, linewidth=3.0, zorder=3, label=label)
        for name in others:
            _line(axes, curves[name], color=next(colours), zorder=2, label=shorten(name, 34))
        hidden = len(curves) - len(others) - (best in curves)
        if hidden:
            axes.plot([], [], color="#CBD3DA", linewidth=1.0, label=f"{hidden} more trials")
        axes.set(xlabel="epoch", ylabel=_in_words(metric))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        trials = f"{len(curves)} trials" if len(curves) != 1 else "one trial"
        headline(axes, "Validation during training", trials)


def plot_head_search(
    scores: Mapping[str, Mapping[float, float]],
    path: Path,
    *,
    metric: str,
    best: tuple[str, float] | None = None,
) -> None:
    """Draw a validation metric over the strength of the L2 penalty, one line per tap.

    Args:
        scores: tap -> {l2: value}.
        best: the chosen (tap, l2); it gets a ring.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with canvas(path, width=7.0, height=4.0) as figure:
        axes = figure.add_subplot()
        for number, (tap, row) in enumerate(scores.items()):
            strengths, colour = sorted(row), PALETTE[number % len(PALETTE)]
            values = [row[strength] for strength in strengths]
            axes.plot(strengths, values, color=colour, marker="o", markersize=4.5, label=tap)
        if best and best[1] in scores.get(best[0], {}):
            axes.scatter(
                [best[1]],
                [scores[best[0]][best[1]]],
                label="kept",
                zorder=3,
                s=150,
                facecolors="none",
                edgecolors=INK,
                linewidths=1.6,
            )
        axes.set(xscale="log", xlabel="strength of the L2 penalty", ylabel=_in_words(metric))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="minor", length=0)
        axes.margins(y=0.12)
        axes.grid(axis="y")
        axes.legend(title="read at", loc="upper left", bbox_to_anchor=(1.01, 1.0))
        headline(axes, "The head's search", _in_words(metric))


def _in_words(metric: str) -> str:
    """``val_log_loss`` -> "validation log loss"."""
    return metric.replace("val_", "validation ").replace("_", " ")


def plot_depth(
    path: Path,
    *,
    divergence: Sequence[tuple[float, float]],
    probes: Mapping[str, tuple[float, float]],
    chosen: str = "",
    score_name: str = "accuracy",
) -> None:
    """Draw how far the data is from the pretraining data by depth, and the score at each depth.

    Args:
        divergence: (depth in 0..1, divergence) for each layer; may be empty.
        probes: tap, shallow to deep -> (cross-validated score, its standard deviation).
        chosen: the tap that the plan reads.
        score_name: name of the probes' score, in words.
    """
    panels = int(bool(divergence)) + int(bool(probes))
    with canvas(path, width=4.6 * max(panels, 1), height=3.9) as figure:
        areas = list(np.atleast_1d(figure.subplots(1, max(panels, 1))))
        if not panels:
            areas[0].axis("off")
            headline(areas[0], "Depth", "neither divergence nor probes were measured")
        if divergence:
            _draw_divergence(areas.pop(0), np.asarray(divergence, float))
        if probes:
            _draw_probes(areas.pop(0), probes, chosen, score_name)


def _draw_divergence(axes: Axes, layers: np.ndarray) -> None:
    depth, value = layers[:, 0], layers[:, 1]
    axes.scatter(depth, value, s=22, color=BLUE, alpha=0.55, linewidths=0, label="one layer")
    quarter = np.minimum((depth * 4).astype(int), 3)
    for number in range(4):
        inside = value[quarter == number]
        if inside.size:
            height = float(np.median(inside))
            label = "median of a quarter" if number == quarter.min() else None
            ends = [number / 4 + 0.01, number / 4 + 0.24]
            axes.plot(ends, [height] * 2, color=ORANGE, linewidth=3, label=label)
    axes.set(xlim=(0, 1), ylim=(0, float(np.nanmax(value)) * 1.25 + 1e-9))
    axes.set(xlabel="depth in the network (0: input)", ylabel="divergence")
    axes.grid(axis="y")
    axes.legend(loc="upper right")
    headline(axes, "Distance from the pretraining data", "lower is nearer")


def _draw_probes(
    axes: Axes, probes: Mapping[str, tuple[float, float]], chosen: str, score_name: str
) -> None:
    mean = np.array([score for score, _ in probes.values()])
    spread = np.array([deviation for _, deviation in probes.values()])
    place = np.arange(len(mean))
    axes.plot(place, mean, color=BLUE, zorder=2)
    above = np.clip(1.0 - mean, 0.0, spread)  # no score exceeds 1
    axes.errorbar(
        place, mean, yerr=(spread, above), fmt="o", color=BLUE, capsize=3, elinewidth=1, zorder=3
    )
    for x, (y, up) in enumerate(zip(mean, above, strict=True)):
        write_note(axes, f"{y:.3f}", (x, y + up), (0, 5), ha="center")
    if chosen in probes:
        at = list(probes).index(chosen)
        axes.axvspan(at - 0.4, at + 0.4, color=ORANGE, alpha=0.18, linewidth=0, zorder=0)
    axes.set_xticks(place, list(probes), rotation=0 if len(mean) <= 7 else 45)
    axes.set_xlim(-0.6, len(mean) - 0.4)
    axes.margins(y=0.18)
    axes.set_ylabel(f"cross-validated {score_name}")
    axes.grid(axis="y")
    note = "mean and standard deviation over the folds"
    headline(axes, "Score of a linear head at each depth", note)
    if chosen in probes:
        axes.set_xlabel(f"depth of the features; shaded: {chosen}, chosen by the plan")
    else:
        axes.set_xlabel("depth of the features")


def _line(axes: Axes, values: Sequence[float], **style: object) -> None:
    epochs = np.arange(1, len(values) + 1)
    marker = "o" if len(values) < 3 else ""
    axes.plot(epochs, list(values), marker=marker, **style)  # type: ignore[arg-type]
