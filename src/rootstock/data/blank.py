"""Detect images that show nothing after decoding, and choose a rendering that avoids them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rootstock.data.inspect import MIN_LEVELS, Inspected
from rootstock.data.rendering import (
    GROUNDS,
    MIN_GROUND_CONTRAST,
    SIXTEEN_BIT_MODES,
    WIDE_MODES,
    Rendering,
    Tones,
    choose_rendering,
    shown_share,
)

MIN_BLANK_SHARE = 0.05
MIN_BLANK_CLASS_SHARE = 0.5
MIN_BLANK_IMAGES = 3


class _Shown(NamedTuple):
    path: str
    stratum: str
    mode: str
    tones: Tones
    flat: bool


def decide_rendering(
    images: Sequence[tuple[str, Inspected]], strata: Sequence[str], splits: Sequence[str]
) -> tuple[Rendering, list[str]]:
    """Return the rendering for usable images, and warnings about it and about blank images.

    ``images`` come with their paths. The rendering is chosen from the training images, or from all
    images if there are none, as in a set that is only for testing.
    """
    training = [one for (_, one), split in zip(images, splits, strict=True) if split == "train"]
    by = training or [one for _, one in images]
    rendering = choose_rendering((one.mode, one.tones) for one in by)
    shown = [
        _Shown(path, stratum, one.mode, one.tones, one.flat)
        for (path, one), stratum in zip(images, strata, strict=True)
    ]
    return rendering, _explain(shown, rendering)


def _explain(images: Sequence[_Shown], rendering: Rendering) -> list[str]:
    warnings = []
    kinds = (
        ("16-bit grey", rendering.deep, SIXTEEN_BIT_MODES),
        ("32-bit", rendering.wide, WIDE_MODES),
    )
    for name, chosen, modes in kinds:
        if chosen:
            count = sum(image.mode in modes for image in images)
            low, high = (f"{edge:,.6g}" for edge in chosen)
            warnings.append(
                f"{count:,} {name} images use values from {low} to {high}: this range becomes "
                "black to white, in training and in the service"
            )
    if rendering.ground != GROUNDS[0]:
        seen = [image for image in images if _is_on_ground(image)]
        unseen = sum(image.tones[0] < MIN_GROUND_CONTRAST for image in seen)
        warnings.append(
            f"{unseen:,} of {len(seen):,} transparent images would show nothing on white: all are "
            f"shown on {rendering.ground_name}, in training and in the service"
        )
    return warnings + _warn_of_blank(images, rendering)


def _warn_of_blank(images: Sequence[_Shown], rendering: Rendering) -> list[str]:
    blank = [image for image in images if _is_blank(image, rendering)]
    sizes = Counter(image.stratum for image in images)
    within = Counter(image.stratum for image in blank)
    classes = [
        name
        for name, count in within.items()
        if count >= max(MIN_BLANK_IMAGES, MIN_BLANK_CLASS_SHARE * sizes[name])
    ]
    if len(blank) < max(MIN_BLANK_IMAGES, MIN_BLANK_SHARE * len(images)) and not classes:
        return []
    most = f", most of the class {sorted(classes)[0]}" if classes and len(sizes) > 1 else ""
    return [
        f"{len(blank):,} of {len(images):,} images show a single colour once they are decoded"
        f"{most}, starting with {blank[0].path}: look at the files, because a model learns nothing "
        "from them"
    ]


def _is_on_ground(image: _Shown) -> bool:
    return bool(image.tones) and image.mode not in SIXTEEN_BIT_MODES + WIDE_MODES


def _is_blank(image: _Shown, rendering: Rendering) -> bool:
    if not image.tones:
        return image.flat
    if _is_on_ground(image):
        return image.tones[GROUNDS.index(rendering.ground)] < MIN_GROUND_CONTRAST
    return shown_share(image.mode, image.tones, rendering) * 255 < MIN_LEVELS
