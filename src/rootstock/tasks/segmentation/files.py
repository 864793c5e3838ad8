"""Read mask files and fit them to their images."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from rootstock.data.decode import no_warnings
from rootstock.data.entry import count
from rootstock.data.target_rules import Settled
from rootstock.errors import DataError
from rootstock.system.cpu import usable_cores
from rootstock.system.escape import list_names
from rootstock.tasks.segmentation.classes import ClassList, find_classes
from rootstock.tasks.segmentation.masks import IGNORED, sample_points, write_text

FORMATS = ("PNG", "BMP", "GIF", "TIFF", "PPM")
"""Formats that preserve every pixel."""
LOSSY_ENDINGS = (".jpg", ".jpeg", ".webp", ".avif")
MAX_STRETCH = 0.02
"""A mask whose ratio of sides differs from its image's by more than this is refused."""
MAX_MASK_PIXELS = 100_000_000
_INDEX_MODES = ("1", "L", "P", "I;16", "I;16B", "I")
_COLOUR_MODES = ("RGB", "RGBA")
_DEEP_IGNORED = 65_535


@dataclass(frozen=True)
class _Sampled:
    """Indexes, or colours, at the points [P,P] of a mask; ``size`` is its width and height."""

    points: np.ndarray
    coloured: bool
    size: tuple[int, int]


def check_names(root: Path, texts: Sequence[str]) -> None:
    """Refuse mask files in formats that change pixels, and outside the data set's folder.

    Raises:
        DataError: names the first one.
    """
    for text in texts:
        if PurePosixPath(text).is_absolute() or ".." in PurePosixPath(text).parts:
            raise DataError(
                f"the mask {text!r} of {root} is outside the folder of the data set",
                hint="write paths relative to the folder of the table",
            )
    lossy = [text for text in texts if text.lower().endswith(LOSSY_ENDINGS)]
    if lossy:
        raise DataError(
            f"{count(len(lossy), 'mask')} of {root} in a format that changes pixels, the first: "
            f"{lossy[0]}",
            hint="a JPEG blurs the borders of classes; save masks as PNG",
        )


def settle_masks(
    base: Path, texts: Sequence[str], paths: Sequence[str], sizes: np.ndarray
) -> Settled:
    """Return the masks on a grid of points, for images of these upright ``sizes`` int[N,2].

    ``texts`` are the masks' paths relative to the folder ``base``, ``paths`` those of the images.
    Raises:
        DataError: a mask is unreadable, does not fit its image, or has an index without a class; or
          all masks together show fewer than two classes.
    """
    listed = find_classes(base)
    with no_warnings(), ThreadPoolExecutor(usable_cores()) as pool:
        sampled = list(pool.map(lambda text: _sample(base / text), texts))
    warnings = _check_sizes(texts, paths, sampled, sizes)
    indexes = [
        _to_indexes(base / text, one, listed) for text, one in zip(texts, sampled, strict=True)
    ]
    classes = _choose_classes(indexes, listed)
    grids = []
    for text, index in zip(texts, indexes, strict=True):
        grid = classes.numbers[index]
        if (grid < 0).any():
            _refuse_index(base / text, int(index[grid < 0][0]), classes)
        grids.append(grid.astype(np.uint8))
    counts = np.zeros(256, np.int64)
    for grid in grids:
        counts += np.bincount(grid.ravel(), minlength=256)
    n_classes = len(classes.names)
    present = [name for name, seen in zip(classes.names, counts[:n_classes], strict=True) if seen]
    if len(present) < 2:
        shown = f"only the class {present[0]!r}" if present else "no class"
        raise DataError(
            f"the masks of {base} show {shown}: there is nothing to learn",
            hint="check the indexes of the masks, and classes.txt if there is one",
        )
    if absent := [name for name in classes.names if name not in present]:
        warnings.append(f"no mask shows the classes {list_names(absent)}, so they are not learned")
    empty = [path for path, grid in zip(paths, grids, strict=True) if (grid == IGNORED).all()]
    if empty:
        warnings.append(
            f"{count(len(empty), 'mask')} to be ignored everywhere, the first is that of "
            f"{empty[0]}; such an image has no effect on training and is not counted"
        )
    return Settled([write_text(grid, classes.names) for grid in grids], warnings)


def _sample(path: Path) -> _Sampled:
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_MASK_PIXELS:
                raise DataError(
                    f"the mask {path} has {width} x {height} pixels",
                    hint=f"the limit is {MAX_MASK_PIXELS:,} pixels; make the mask smaller",
                )
            mode, pixels = image.mode, np.asarray(image)
    except FileNotFoundError:
        raise DataError(
            f"the mask {path} does not exist", hint="correct the table, or remove the image"
        ) from None
    except UnidentifiedImageError:
        raise DataError(
            f"the mask {path} is not an image in a lossless format", hint="save it as PNG"
        ) from None
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise many types
        raise DataError(
            f"the mask {path} cannot be decoded: {error}", hint="save it again as PNG"
        ) from None
    if mode not in (*_INDEX_MODES, *_COLOUR_MODES):
        raise DataError(
            f"the mask {path} has pixels of the kind {mode}, which are neither indexes nor colours",
            hint="save it as a grey or palette PNG whose values are the indexes of the classes",
        )
    points = pixels[np.ix_(sample_points(height), sample_points(width))]
    if mode in _COLOUR_MODES:
        red, green, blue = (points[..., channel].astype(np.int64) for channel in range(3))
        return _Sampled(red << 16 | green << 8 | blue, True, (width, height))
    points = points.astype(np.int64)
    if mode.startswith("I"):
        points[points == _DEEP_IGNORED] = 255
    return _Sampled(points, False, (width, height))


def _check_sizes(
    texts: Sequence[str], paths: Sequence[str], sampled: Sequence[_Sampled], sizes: np.ndarray
) -> list[str]:
    resized = []
    for text, path, one, (width, height) in zip(texts, paths, sampled, sizes.tolist(), strict=True):
        if one.size == (width, height):
            continue
        stretch = one.size[0] * height / (one.size[1] * width)
        if not 1 - MAX_STRETCH <= stretch <= 1 + MAX_STRETCH:
            turned = one.size == (height, width)
            raise DataError(
                f"the mask {text} is {one.size[0]} x {one.size[1]} pixels, but its image {path} is "
                f"{width} x {height}" + (" after turning by its EXIF data" if turned else ""),
                hint="a mask must cover the whole upright image, in the same proportions",
            )
        resized.append(text)
    if not resized:
        return []
    return [
        f"{count(len(resized), 'mask')} of another size than the image, the first is {resized[0]}; "
        "the sides are in the same proportion, so it is resized to fit"
    ]


def _to_indexes(path: Path, one: _Sampled, classes: ClassList | None) -> np.ndarray:
    if not one.coloured:
        return one.points
    colours = classes.colours if classes else {}
    if not colours:
        raise DataError(
            f"the mask {path} has colours, but no file defines their classes",
            hint="put a classes.csv with the columns name and colour (such as #804080) next to the "
            "masks, or save masks as grey or palette PNGs of class indexes",
        )
    found, inverse = np.unique(one.points, return_inverse=True)
    if unknown := [colour for colour in found.tolist() if colour not in colours]:
        raise DataError(
            f"the mask {path} has the colour #{unknown[0]:06x}, which no class has",
            hint=f"add it to {classes.source if classes else ''}, with ignore=true if it is not "
            "a class",
        )
    numbers = np.array([colours[colour] for colour in found.tolist()])
    return numbers[inverse].reshape(one.points.shape)


def _choose_classes(indexes: Sequence[np.ndarray], listed: ClassList | None) -> ClassList:
    found = sorted(set().union(*(np.unique(one).tolist() for one in indexes)))
    if found == [0, 255] and (listed is None or len(listed.names) == 2):
        return ClassList.binary(listed)  # black and white, and not a single class
    if listed:
        return listed
    highest = max((index for index in found if index < 255), default=0)
    return ClassList.plain(highest)


def _refuse_index(path: Path, index: int, classes: ClassList) -> None:
    if classes.source is None:
        known = f"indexes are from 0 to {len(classes.names) - 1}, and 255 for ignored areas"
    else:
        known = f"{classes.source} names {len(classes.names)} classes"
    raise DataError(
        f"the mask {path} has a pixel of index {index}, which is not a class; {known}",
        hint="name the class, or give it index 255 to ignore it",
    )
