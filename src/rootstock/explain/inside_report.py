"""A look inside a network: one HTML page with pictures, for people who want to understand it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from rootstock.evaluate.html_report import render_html
from rootstock.explain.inside import (
    busiest_channels,
    exciting_patches,
    read_filters,
    stretch,
    strongest_maps,
)
from rootstock.explain.lens import Lens, guided_gradient, receptive_field, to_tensor, to_view
from rootstock.explain.optimise import dream, invert, maximise
from rootstock.plots.sheet import plot_captioned_tiles
from rootstock.system.escape import list_names
from rootstock.system.files import write_atomic
from rootstock.system.progress import Progress
from rootstock.tasks.task import Subject

Tile = tuple[np.ndarray, str, str]
MAX_TILES = 24
MAX_CLASSES, MAX_MAPS, MAX_IMAGES = 12, 4, 8
CHANNELS, PATCHES = 2, 6

_TEXT = """# A look inside the model

{about}

## First layer

Each picture is one filter of the first convolution: the pattern that a single position of the first
map detects. Pretrained networks have edges in all directions, and spots of colour.

![filters](filters.png)

## Activation maps at each depth

The maps that differ most over the image, from the first tap to the last. Deeper maps are coarser
and respond to things rather than edges.

![activation maps](maps.png)

## Patches that excite a channel

The parts of the given images that excite a channel most. Each is as large as the area that one
position of the map sees (the effective receptive field, Luo et al. 2016): {fields}.

![patches](patches.png)

## Important pixels

Next to each image: the pixels that raise its answer (guided back-propagation, Springenberg et al.
2015).

![guided gradients](guided.png)

## The image that raises an answer most

Made from grey noise by gradient ascent with jitter and smoothing (Simonyan et al. 2014,
Mordvintsev et al. 2015). It shows what the network looks for, and how little is enough to get a
high output.

![maximised answers](answers.png)

## Information left at each depth

Images painted so that the maps of a tap equal those of the first image (Mahendran and Vedaldi
2015). The details that are missing were not needed to separate the classes.

![inversions](inversions.png)

## Dream

The first image, changed so that each tap responds more strongly (Mordvintsev et al. 2015).

![dreams](dreams.png)
"""


def write_inside(
    lens: Lens,
    views: Sequence[np.ndarray],
    answers: Sequence[str],
    subjects: Mapping[str, Subject],
    out: Path,
) -> None:
    """Write the page to the file ``out``.

    Args:
        views: uint8[S,S,3] of one image or more; up to 8 are used.
        answers: the name of the subject to explain for each view.
        subjects: everything that can be explained, by name.
    """
    views, answers = views[:MAX_IMAGES], answers[:MAX_IMAGES]
    taps = list(range(lens.n_taps))
    titles = [f"tap {tap + 1} of {lens.n_taps}" for tap in taps]
    sections = {
        "filters": partial(_filters, lens),
        "maps": partial(_maps, lens, views[0], titles),
        "patches": partial(_patches, lens, views, titles),
        "guided": partial(_guided, lens, views, answers, subjects),
        "answers": partial(_answers, lens, subjects),
        "inversions": partial(_inversions, lens, views[0], titles),
        "dreams": partial(_dreams, lens, views[0], titles),
    }
    fields = ", ".join(f"{receptive_field(lens, tap)} pixels at {titles[tap]}" for tap in taps)
    side = lens.preprocess.input_size
    subjects_left = len(subjects) > MAX_CLASSES
    about = (
        f"The network sees images of {side} x {side} pixels and answers with: "
        f"{list_names(list(subjects)[:MAX_CLASSES])}{' ...' if subjects_left else ''}. All "
        "pictures are computed from the model and the given images, and are reproducible."
    )
    with tempfile.TemporaryDirectory(prefix="rootstock-") as scratch:
        with Progress("pictures", len(sections), "section") as progress:
            for name, make in sections.items():
                plot_captioned_tiles(
                    make()[:MAX_TILES],
                    Path(scratch) / f"{name}.png",
                    headlines=(name.capitalize(), ""),
                )
                progress.update(1)
        page = render_html(_TEXT.format(about=about, fields=fields), Path(scratch))
    with write_atomic(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _filters(lens: Lens) -> list[Tile]:
    return [(_enlarge(one), "", "") for one in read_filters(lens)]


def _maps(lens: Lens, view: np.ndarray, titles: Sequence[str]) -> list[Tile]:
    strongest = strongest_maps(lens, view, count=MAX_MAPS)
    return [(view, "the image", "")] + [
        (_enlarge(_grey(one)), title, "")
        for title, maps in zip(titles, strongest, strict=True)
        for one in maps
    ]


def _patches(lens: Lens, views: Sequence[np.ndarray], titles: Sequence[str]) -> list[Tile]:
    tiles = []
    for tap in (lens.n_taps // 2, lens.n_taps - 1):
        for channel in busiest_channels(lens, views, tap, count=CHANNELS):
            patches = exciting_patches(lens, views, tap, channel, count=PATCHES)
            tiles += [(one.pixels, titles[tap], f"channel {channel}") for one in patches]
    return tiles


def _guided(
    lens: Lens,
    views: Sequence[np.ndarray],
    answers: Sequence[str],
    subjects: Mapping[str, Subject],
) -> list[Tile]:
    tiles = []
    for view, answer in zip(views, answers, strict=True):
        gradient = guided_gradient(lens, view, subjects[answer].outputs[0])
        top = np.percentile(gradient, 99.5)
        tiles += [(view, answer, ""), (_grey(np.minimum(gradient, top)), "its pixels", "")]
    return tiles


def _answers(lens: Lens, subjects: Mapping[str, Subject]) -> list[Tile]:
    def margin(image: Tensor, subject: Subject) -> Tensor:
        outputs = lens.outputs(image)[0]
        value = outputs[subject.outputs[0]]
        return value - outputs[list(subject.rivals)].mean() if subject.rivals else value

    # The largest or smallest box has no picture.
    single = [(name, one) for name, one in subjects.items() if len(one.outputs) == 1]
    return [
        (to_view(maximise(lens, partial(margin, subject=subject))), name, "")
        for name, subject in single[:MAX_CLASSES]
    ]


def _inversions(lens: Lens, view: np.ndarray, titles: Sequence[str]) -> list[Tile]:
    target = to_tensor(view)
    return [(view, "the image", "")] + [
        (to_view(invert(lens, target, tap)), title, "") for tap, title in enumerate(titles)
    ]


def _dreams(lens: Lens, view: np.ndarray, titles: Sequence[str]) -> list[Tile]:
    image = to_tensor(view)
    return [(view, "the image", "")] + [
        (to_view(dream(lens, image, tap)), title, "") for tap, title in enumerate(titles)
    ]


def _grey(values: np.ndarray) -> np.ndarray:
    """Return float[h,w] as uint8[h,w,3], from the lowest value to the highest."""
    return np.repeat(stretch(values)[..., None], 3, axis=2)


def _enlarge(pixels: np.ndarray, side: int = 128) -> np.ndarray:
    """Return uint8[side,side,3] with sharp cells."""
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST))
