"""The corpus for pretraining: decoded once to a memory-mapped array, cropped in batches.

Decoding takes a hundred times as long as a training step of a small network, so it happens once.
Crops are taken from whole batches of tensors by a single bilinear or bicubic sampling step.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from rootstock.data.decode import read_image
from rootstock.errors import DataError, ImageError
from rootstock.system.cpu import usable_cores
from rootstock.system.digest import digest_json
from rootstock.system.files import read_json, write_json

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Corpus:
    """``images``: uint8 [N, S, S, 3]; ``labels``: int64 [N], an index into ``classes``.

    ``key`` identifies this corpus by file names, file sizes, and ``S``.
    """

    images: np.ndarray
    labels: Tensor
    classes: tuple[str, ...]
    key: str

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> Tensor:
        """Return the images of ``rows`` as float32 [B, 3, S, S] in [-1, 1]."""
        pixels = torch.from_numpy(np.ascontiguousarray(self.images[rows.numpy()]))
        return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def natural_size(folder: Path, *, at_most: int) -> int:
    """Return the median short side in pixels of some images below ``folder``, up to ``at_most``."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
    sides = []
    for path in paths[:: max(1, len(paths) // 32)]:
        with suppress(ImageError):
            sides.append(min(read_image(path).pixels.shape[:2]))
    return min(at_most, int(np.median(sides))) if sides else at_most


def read_corpus(folder: Path, *, stored_size: int, work: Path) -> Corpus:
    """Decode every image below ``folder`` once into ``work``; later calls map the same file.

    The first folder level names the classes. Images that cannot be decoded are left out and
    listed in the cache's JSON. Raises DataError if no image is left.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
    listing = [(p.relative_to(folder).as_posix(), p.stat().st_size) for p in paths]
    key = digest_json([listing, stored_size], digits=16)
    cache, card = work / f"corpus-{key}.npy", work / f"corpus-{key}.json"
    if not card.exists():
        _decode_all(folder, [name for name, _ in listing], stored_size, cache=cache, card=card)
    facts = read_json(card, made_by="pretrain")
    if not facts["paths"]:
        raise DataError(
            f"no readable image below {folder}", hint="choose a folder with image files"
        )
    tops = [name.split("/")[0] if "/" in name else "" for name in facts["paths"]]
    classes = sorted(set(tops))
    labels = torch.tensor([classes.index(top) for top in tops])
    images = np.load(cache, mmap_mode="r")[: len(tops)]
    return Corpus(images, labels, tuple(name for name in classes if name), key)


def _decode_all(folder: Path, names: list[str], size: int, *, cache: Path, card: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    if not names:
        write_json(card, {"paths": [], "skipped": []})
        return
    partial = cache.with_suffix(".tmp")
    shape = (len(names), size, size, 3)
    pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    kept: list[str] = []
    skipped: list[tuple[str, str]] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        squares = pool.map(lambda name: _square(folder / name, size), names)
        for name, square in zip(names, squares, strict=True):
            if isinstance(square, str):
                skipped.append((name, square))
            else:
                pixels[len(kept)] = square
                kept.append(name)
    pixels.flush()
    partial.replace(cache)
    write_json(card, {"paths": kept, "skipped": skipped})


def _square(path: Path, size: int) -> np.ndarray | str:
    """Return the centre square of one image as uint8 [size, size, 3], or why there is none."""
    try:
        image = Image.fromarray(read_image(path).pixels)
    except ImageError as error:
        return error.reason
    return np.asarray(ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC))


def random_boxes(count: int, *, smallest: float, generator: torch.Generator) -> Tensor:
    """Return ``count`` crops of ``smallest`` to 1 of the area, sides 3:4 to 4:3 (Inception).

    Returns float32 [count, 4]: top, left, height, width as fractions of the image.
    """
    area = torch.empty(count).uniform_(smallest, 1.0, generator=generator)
    skew = torch.empty(count).uniform_(-math.log(4 / 3), math.log(4 / 3), generator=generator)
    height = (area * torch.exp(-skew)).sqrt().clamp(max=1.0)
    width = (area * torch.exp(skew)).sqrt().clamp(max=1.0)
    top = torch.rand(count, generator=generator) * (1 - height)
    left = torch.rand(count, generator=generator) * (1 - width)
    return torch.stack([top, left, height, width], dim=1)


def centre_boxes(count: int, *, crop_pct: float) -> Tensor:
    """Return the centre crop for evaluation, ``crop_pct`` of each side; float32 [count, 4]."""
    edge = (1 - crop_pct) / 2
    return torch.tensor([edge, edge, crop_pct, crop_pct]).expand(count, 4)


def crop(images: Tensor, boxes: Tensor, *, size: int, mode: str = "bilinear") -> Tensor:
    """Cut one box out of each image and resize it to float32 [B, 3, size, size]."""
    shrink = images.shape[-1] // size
    if shrink >= 2:  # sampling would skip pixels
        images = F.avg_pool2d(images, shrink)
    top, left, height, width = boxes.unbind(dim=1)
    zero = torch.zeros_like(top)
    across = torch.stack([width, zero, 2 * left + width - 1], dim=1)
    down = torch.stack([zero, height, 2 * top + height - 1], dim=1)
    affine = torch.stack([across, down], dim=1).to(images.device)
    grid = F.affine_grid(affine, [len(images), 3, size, size], align_corners=False)
    cut = F.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)
    return cut.clamp_(-1.0, 1.0)


def augment(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Flip half of the images; change contrast by 20 % and each channel's light by 5 %."""
    count = len(images)
    flipped = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    contrast = torch.empty(count, 1, 1, 1).uniform_(0.8, 1.2, generator=generator)
    light = torch.empty(count, 3, 1, 1).uniform_(-0.1, 0.1, generator=generator)
    device = images.device
    images = torch.where(flipped.to(device), images.flip(3), images)
    return images * contrast.to(device) + light.to(device)
