"""Write computed features into the store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.features.fastest import TASK_IMAGES
from rootstock.features.forward import Features, ForwardPass
from rootstock.features.store.store import FeatureSpace
from rootstock.system.progress import Progress
from rootstock.system.threads import spread

SEGMENT_ROWS, SEGMENT_SECONDS = 512, 20.0
"""After this many images or seconds the work is written to disk: a crash loses no more."""


class FeatureWriter:
    """Stores the features of ``n_images`` images at single ``taps``, one segment at a time.

    Use it as a context manager: without an error the last segment is stored at the end.
    """

    def __init__(self, space: FeatureSpace, taps: Sequence[str], n_images: int) -> None:
        self._space, self._taps = space, taps
        self._keys: list[str] = []
        self._parts: list[Features] = []
        self._flushed = time.monotonic()
        self._bar = Progress("features", n_images, "image")

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, traceback)
        if error is None and self._keys:
            self._flush()

    def add(self, rows: Sequence[ImageRow], features: Features) -> None:
        """Add the features of some images."""
        self._keys += [row.sha256 for row in rows]
        self._parts.append(features)
        self._bar.update(len(rows))
        if len(self._keys) >= SEGMENT_ROWS or time.monotonic() - self._flushed > SEGMENT_SECONDS:
            self._flush()

    def _flush(self) -> None:
        joined = {tap: np.concatenate([part[tap] for part in self._parts]) for tap in self._taps}
        self._space.append(self._keys, joined)
        self._keys, self._parts = [], []
        self._flushed = time.monotonic()


def store_along(
    batches: Iterable[tuple[Sequence[ImageRow], np.ndarray]],
    todo: Sequence[ImageRow],
    forward: ForwardPass,
    writer: FeatureWriter,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Yield the prepared images of all batches; store the features of the rows in ``todo``.

    Those are computed in separate batches, so that copies, or images whose features are already
    stored, change none of them: in a batch of another size their last bits can differ.
    """
    size = TASK_IMAGES * -(-batch_size // TASK_IMAGES) if forward.concurrent else batch_size
    missing = {row.sha256 for row in todo}
    waiting: list[tuple[ImageRow, np.ndarray]] = []
    with writer:
        for batch, pixels in batches:
            for row, image in zip(batch, pixels, strict=True):
                if row.sha256 in missing:
                    missing.remove(row.sha256)
                    waiting.append((row, image))
            while len(waiting) >= size or (waiting and not missing):
                rows, images = zip(*waiting[:size], strict=True)
                del waiting[:size]
                writer.add(rows, _compute(forward, np.stack(images)))
            yield pixels


def _compute(forward: ForwardPass, images: np.ndarray) -> Features:
    """Return the features of prepared images uint8[N,S,S,3], computed with all cores."""
    if not forward.concurrent:
        return forward.run(images)
    tasks = [images[at : at + TASK_IMAGES] for at in range(0, len(images), TASK_IMAGES)]
    parts = list(spread(forward.run, tasks))
    return {tap: np.concatenate([part[tap] for part in parts]) for tap in parts[0]}
