"""ImageSet: the pixels of one split for fine-tuning, decoded and resized once for all trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from rootstock.data.manifest import ImageRow
from rootstock.data.preprocess import Preprocess
from rootstock.features.loading import prepared_batches
from rootstock.system.files import write_atomic
from rootstock.system.progress import Progress
from rootstock.tasks.targets import Targets

SIZE_RATIO = 1.15
"""Factor by which stored training pixels exceed the input, so that crops lose no detail."""
CACHE_BYTES = 16 * 2**30
"""Above this size the pixels are decoded in each epoch instead of being stored on disk."""
_BLOCK_IMAGES = 256


@dataclass(frozen=True)
class ImageSet:
    """Rows of one split with their targets; picklable, since the pixels are on disk.

    ``cache`` is a .npy file of uint8[N,P,P,3]; None: images are decoded on demand.
    """

    rows: tuple[ImageRow, ...]
    targets: Targets
    root: Path
    preprocess: Preprocess
    cache: Path | None

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return uint8[n,P,P,3] of some images.

        Raises:
            DataError: an image has changed or disappeared since it was indexed.
        """
        if self.cache is not None:
            return np.load(self.cache, mmap_mode="r")[np.asarray(indices)]
        rows = [self.rows[index] for index in indices]
        batches = prepared_batches(rows, self.root, self.preprocess, batch_size=len(rows))
        return next(iter(batches))[1]


def prepare_images(
    rows: Sequence[ImageRow],
    targets: Targets,
    *,
    root: Path,
    preprocess: Preprocess,
    cache: Path,
) -> ImageSet:
    """Return an ImageSet with its pixels in ``cache``, written now if needed and not too large."""
    side = preprocess.input_size
    images = ImageSet(tuple(rows), targets, root, preprocess, None)
    if len(rows) * side * side * 3 > CACHE_BYTES:
        return images
    if not cache.exists():
        with write_atomic(cache) as temporary:
            shape = (len(rows), side, side, 3)
            pixels = open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            start = 0
            with Progress("pixels", len(rows), "image") as bar:
                for block, found in prepared_batches(
                    rows, root, preprocess, batch_size=_BLOCK_IMAGES
                ):
                    pixels[start : start + len(block)] = found
                    start += len(block)
                    bar.update(len(block))
            pixels.flush()
    return ImageSet(images.rows, targets, root, preprocess, cache)


def training_preprocess(preprocess: Preprocess) -> Preprocess:
    """Return the preprocessing of the evaluation, with a margin around the crop to augment."""
    return preprocess.with_size(round(preprocess.input_size * SIZE_RATIO))
