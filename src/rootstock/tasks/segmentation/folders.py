"""Folders of images and masks: files of the same stem in `images/` and `masks/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rootstock.data.entry import Entry, count
from rootstock.data.split_names import read_split_name, settle_eval
from rootstock.data.tree import scan_folder
from rootstock.errors import DataError

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "segmentations")
MASK_SUFFIXES = ("_mask", "-mask", "_labels", "_label", "_L", "_seg")
"""Suffixes that a mask's name may have after the stem of its image."""


@dataclass
class PairReader:
    """Reads the pairs of ``places``: a split or None, and two folders below ``root``."""

    root: Path
    places: list[tuple[str | None, str, str]]
    need_train: bool = True
    warnings: list[str] = field(default_factory=list)

    def read(self) -> list[Entry]:
        """Return the images that have a mask.

        Raises:
            DataError: there are no such images, two files of a folder have the same stem, or there
              are splits but no training split.
        """
        splits = {split for split, _, _ in self.places}
        if self.need_train and splits != {None} and "train" not in splits:
            raise DataError(
                f"{self.root} has splits, but no folder of the split train",
                hint="name the folder of the training images `train`",
            )
        entries: list[Entry] = []
        bare: list[str] = []
        lone: list[str] = []
        for split, image_folder, mask_folder in self.places:
            images, masks = (self._stems(name) for name in (image_folder, mask_folder))
            for stem, path in images.items():
                mask = next(
                    (masks.pop(stem + end) for end in ("", *MASK_SUFFIXES) if stem + end in masks),
                    None,
                )
                if mask is None:
                    bare.append(path)
                else:
                    entries.append(Entry(path, mask, split))
            lone += masks.values()
        if bare:
            self.warnings.append(
                f"{count(len(bare), 'image')} without a mask ignored, the first is {bare[0]}"
            )
        if lone:
            self.warnings.append(
                f"{count(len(lone), 'mask')} without an image ignored, the first is {lone[0]}"
            )
        if not entries:
            raise DataError(
                f"no image in {self.root} has a mask with the same name",
                hint="images/street.jpg needs masks/street.png",
            )
        return entries

    def _stems(self, folder: str) -> dict[str, str]:
        """Return the path of each file relative to ``root``, by its name without suffix."""
        tree, warnings = scan_folder(self.root / folder)
        self.warnings += warnings
        stems: dict[str, str] = {}
        for name in sorted(tree.paths()):
            path, stem = f"{folder}/{name}", str(PurePosixPath(name).with_suffix(""))
            if stem in stems:
                raise DataError(
                    f"{path} and {stems[stem]} in {self.root} differ only in their suffix",
                    hint="remove one, so that it is clear which image belongs to which mask",
                )
            stems[stem] = path
        return stems


def find_pairs(root: Path) -> list[tuple[str | None, str, str]]:
    """Return the split (or None), the images' and the masks' folder of each pair below ``root``.

    The pair is in ``root``, or in folders of it that are named like splits: `train/images`; or the
    splits are in both folders: `images/train` and `masks/train`.
    """
    if not root.is_dir():
        return []
    below = _folders(root)
    image_folder = next((name for name in IMAGE_FOLDERS if name in below), "")
    mask_folder = next((name for name in MASK_FOLDERS if name in below), "")
    if image_folder and mask_folder:
        splits = _splits(_folders(root / image_folder) & _folders(root / mask_folder))
        if splits:
            return [
                (split, f"{image_folder}/{name}", f"{mask_folder}/{name}")
                for name, split in splits.items()
            ]
        return [(None, image_folder, mask_folder)]
    pairs = []
    for name, split in _splits(below).items():
        inner = find_pairs(root / name)
        if len(inner) == 1 and inner[0][0] is None:
            pairs.append((split, f"{name}/{inner[0][1]}", f"{name}/{inner[0][2]}"))
    return pairs


def _folders(folder: Path) -> set[str]:
    try:
        return {one.name for one in folder.iterdir() if one.is_dir()}
    except OSError:
        return set()


def _splits(names: set[str]) -> dict[str, str | None]:
    found = {name: read_split_name(name) for name in sorted(names)}
    bare = {name: one.split for name, one in found.items() if one and one.bare}
    return dict(settle_eval(bare))
