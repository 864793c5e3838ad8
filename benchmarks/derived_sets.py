"""Image sets with one class per image, derived from other sets and reduced to a short side."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

Labelled = Iterator[tuple[Path, str]]


def _animals(folder: Path) -> Labelled:
    """Raccoon or kangaroo."""
    for row in _rows(folder / "largest_box.csv"):
        yield folder / row["path"], row["label"]


def _blood_count(folder: Path) -> Labelled:
    """Blood smears by their count of red cells: above or below the median."""
    rows = _rows(folder / "red_cells.csv")
    counts = np.array([float(row["target"]) for row in rows])
    for row, count in zip(rows, counts, strict=True):
        if count != np.median(counts):
            yield folder / row["path"], "many" if count > np.median(counts) else "few"


def _street(presence: str) -> Callable[[Path], Labelled]:
    """Street scenes by the presence of one class; the given splits are of whole films."""

    def label(folder: Path) -> Labelled:
        for row in _rows(folder / "labels.csv"):
            has = presence in row["labels"].split(";")
            yield folder / row["path"], "with" if has else "without"

    return label


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


DERIVED: Mapping[str, tuple[str, Callable[[Path], Labelled]]] = {
    "animals": ("animals_boxes", _animals),
    "blood_count": ("blood_boxes", _blood_count),
    "street_bicyclist": ("street_scenes", _street("Bicyclist")),
    "street_fence": ("street_scenes", _street("Fence")),
    "street_pedestrian": ("street_scenes", _street("Pedestrian")),
}
"""Name of the source set, and the function that labels its images."""


def derive_set(name: str, source: Path, out: Path) -> Path:
    """Link the images of ``source`` into class folders in ``out``; return ``out``."""
    for path, label in DERIVED[name][1](source):
        link = out / label / f"{path.parent.name}-{path.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(path.resolve())
    return out


def reduce_image(source: Path, out: Path, short_side: int) -> None:
    """Write an image as PNG whose short side is at most ``short_side`` pixels."""
    with Image.open(source) as image:
        scale = min(1.0, short_side / min(image.size))
        size = (round(image.width * scale), round(image.height * scale))
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(out.with_suffix(".png"))
