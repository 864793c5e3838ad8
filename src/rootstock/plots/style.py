"""The style of every picture, and how pictures are written to disk.

Colours are Okabe and Ito's, which colour-blind readers can distinguish (Color Universal Design,
2008). matplotlib is imported inside functions because most commands never draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.system.escape import escape_terminal
from rootstock.system.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK, QUIET, GRID, EMPTY = "#1F2D3A", "#74828F", "#E4E9ED", "#F1F3F5"
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PINK, BLACK = "#56B4E9", "#CC79A7", "#000000"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK)
SPLIT_COLOURS = {"train": BLUE, "val": SKY, "test": ORANGE}

DPI = 144
MAX_INCHES = 24.0

# Fonts for scripts that DejaVu Sans (part of matplotlib) lacks; installed ones are used.
_MORE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Arial Unicode MS",
)


@contextmanager
def canvas(path: Path, *, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of this size in inches, in the house style; write it to ``path`` on exit."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # "default" first: a user's matplotlibrc must not change the bytes.
    with style.context(["default", _look()]):
        size = (min(width, MAX_INCHES), min(height, MAX_INCHES))
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        agg = FigureCanvasAgg(figure)  # not pyplot: no global state or display
        yield figure
        with write_atomic(path) as temporary:
            # Not savefig, which draws everything twice; and matplotlib would sign the file. Packing
            # a sheet of photos twice as hard makes it a sixteenth smaller.
            agg.print_png(temporary, metadata={"Software": None}, pil_kwargs={"compress_level": 3})


def headline(axes: Axes, title: str, subtitle: str = "") -> None:
    """Write a title and a grey line below it, both at the left edge of the axes."""
    lift = 20 if subtitle else 8
    axes.set_title(_flat(title), loc="left", pad=lift)
    if subtitle:
        write_note(axes, _flat(subtitle), (0, 1), (0, 7), xycoords="axes fraction", fontsize=8.5)


def write_note(
    axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], **style: Any
) -> None:
    """Write small grey text ``offset`` points away from a point of the axes."""
    style = {"fontsize": 8, "color": QUIET, **style}
    axes.annotate(text, point, xytext=offset, textcoords="offset points", **style)


def display_names(classes: Sequence[str], *, limit: int = 24) -> list[str]:
    """Return class names for use as labels: one line, shortened in the middle, drawable.

    A name in a script that no installed font has becomes ``class 7``, its line in
    reports/per_class.csv.
    """
    return [
        shorten(name, limit) if is_drawable(name) else f"class {number}"
        for number, name in enumerate(classes, start=1)
    ]


def shorten(text: str, limit: int) -> str:
    """Return ``text`` on one line with at most ``limit`` characters, shortened in the middle."""
    text = _flat(text)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def fit(text: str, axes: Axes, *, points: float, pixels: float) -> str:
    """Return ``text``, shortened in the middle to at most ``pixels`` wide at this size."""
    from matplotlib.font_manager import FontProperties

    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    font = FontProperties(family=list(_fonts()), size=points)  # type: ignore[arg-type]
    limit, shown = len(text), shorten(text, len(text))
    while limit > 3 and renderer.get_text_width_height_descent(shown, font, False)[0] > pixels:
        limit -= 1
        shown = shorten(text, limit)
    return shown


def is_drawable(text: str) -> bool:
    """Return whether the fonts of this machine have every character of ``text``."""
    return {ord(character) for character in _flat(text)} <= _glyphs()


def blues() -> Colormap:
    """Return white to dark blue; missing values are light grey."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = ["#FFFFFF", "#CFE3F1", "#6FB0DA", BLUE, "#00324F"]
    return LinearSegmentedColormap.from_list("rootstock", colours).with_extremes(bad="#ECEEF0")


def _flat(text: str) -> str:
    """Return one line without characters that cannot be encoded (file names may contain some)."""
    return escape_terminal(" ".join(text.encode("utf-8", "replace").decode("utf-8").split()))


@cache
def _fonts() -> tuple[str, ...]:
    from matplotlib import font_manager

    known = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _MORE_FONTS if name in known))


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager

    characters: set[int] = set()
    for name in _fonts():
        font = font_manager.get_font(font_manager.findfont(name))
        characters.update(font.get_charmap())
    return frozenset(characters)


def _look() -> dict[str, Any]:
    return {
        "font.family": list(_fonts()),
        "font.size": 9.0,
        "text.color": INK,
        "text.parse_math": False,  # a class may be called `$5_bill$`
        "axes.titlesize": 12.0,
        "axes.titleweight": "bold",
        "axes.titlecolor": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#B6C0C9",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": False,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "figure.constrained_layout.h_pad": 0.1,
        "figure.constrained_layout.w_pad": 0.1,
        "svg.hashsalt": "rootstock",
    }
