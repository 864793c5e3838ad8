"""Decode and prepare images in parallel and in order, a bounded number ahead of their use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from rootstock.data.decode import decode_image
from rootstock.data.limits import INDEXED
from rootstock.data.manifest import ImageRow
from rootstock.data.preprocess import Preprocess
from rootstock.data.read import read_file
from rootstock.data.rendering import PLAIN, Rendering
from rootstock.errors import DataError, ImageError
from rootstock.system.cpu import usable_cores
from rootstock.system.threads import TASKS_AHEAD, spread

MAX_THREAD_CORES = 4
"""With more cores, decoding threads wait for the interpreter's lock; processes do not."""
_PROBLEMS = {
    "unreadable": "can no longer be read",
    "too-large": "has changed",
    "empty": "has changed",
}
OnImage = Callable[[ImageRow, np.ndarray], None]
"""Called with each decoded image, uint8[H,W,3], in any order and by several threads."""


def read_pixels(
    row: ImageRow, root: Path, *, short_side: int | None = None, rendering: Rendering = PLAIN
) -> np.ndarray:
    """Decode an indexed image to uint8[H,W,3]; the options are those of `decode_image`.

    Raises:
        DataError: the image has changed or disappeared since it was indexed.
    """
    content = read_indexed(row, root)
    try:
        return decode_image(content, INDEXED, short_side=short_side, rendering=rendering).pixels
    except ImageError as error:
        raise _not_as_indexed(row, root, f"can no longer be decoded: {error.message}") from None


def read_indexed(row: ImageRow, root: Path) -> bytes:
    """Return the content of an image's file.

    Raises:
        DataError: the file has changed or disappeared since it was indexed.
    """
    try:
        # A file that has grown since then, or is now a pipe, is not read.
        content = read_file(root / row.path, replace(INDEXED, max_bytes=row.bytes)).content
    except ImageError as error:
        raise _not_as_indexed(row, root, _PROBLEMS[error.reason]) from None
    if hashlib.sha256(content).hexdigest() != row.sha256:
        raise _not_as_indexed(row, root, "has changed")
    return content


def _not_as_indexed(row: ImageRow, root: Path, problem: str) -> DataError:
    return DataError(
        f"{root / row.path} {problem} since it was indexed", hint="run the stage `index` again"
    )


def read_prepared(
    rows: Sequence[ImageRow],
    root: Path,
    preprocess: Preprocess,
    on_image: OnImage | None = None,
) -> np.ndarray:
    """Decode indexed images and fit them to the input: uint8[N,S,S,3].

    Raises:
        DataError: an image has changed or disappeared since it was indexed.
    """
    prepared = []
    for row in rows:
        pixels = read_pixels(
            row, root, short_side=preprocess.decoded_side, rendering=preprocess.rendering
        )
        if on_image:
            on_image(row, pixels)
        prepared.append(preprocess.fit(pixels))
    return np.stack(prepared)


def prepared_batches(
    rows: Sequence[ImageRow],
    root: Path,
    preprocess: Preprocess,
    *,
    batch_size: int,
    processes: bool | None = None,
    on_image: OnImage | None = None,
) -> Iterator[tuple[Sequence[ImageRow], np.ndarray]]:
    """Yield rows and their pixels uint8[N,S,S,3]; the next batches are prepared at the same time.

    ``processes`` None: use processes on machines with more than `MAX_THREAD_CORES` cores. They do
    not call ``on_image``.
    Raises:
        DataError: an image has changed or disappeared since it was indexed.
    """
    if processes is None:
        processes = usable_cores() > MAX_THREAD_CORES
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    if processes and len(batches) > 1:
        yield from zip(batches, _by_processes(batches, root, preprocess), strict=True)
        return
    # Threads take single images, so that the first batch is ready as soon as possible.
    images = spread(lambda row: read_prepared([row], root, preprocess, on_image)[0], rows)
    for batch in batches:
        yield batch, np.stack([next(images) for _ in batch])


def _by_processes(
    batches: Sequence[Sequence[ImageRow]], root: Path, preprocess: Preprocess
) -> Iterator[np.ndarray]:
    """Use torch's loader, whose processes pass pixels in shared memory."""
    from torch.utils.data import DataLoader, Dataset

    loader: DataLoader[Any] = DataLoader(
        cast("Dataset[Any]", _Batches(batches, root, preprocess)),
        batch_size=None,
        num_workers=min(usable_cores(), len(batches)),
        prefetch_factor=TASKS_AHEAD,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch.numpy()


class _Batches:
    """A map-style data set of torch; an item is a whole batch."""

    def __init__(
        self, batches: Sequence[Sequence[ImageRow]], root: Path, preprocess: Preprocess
    ) -> None:
        self.batches, self.root, self.preprocess = batches, root, preprocess

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        try:
            return read_prepared(self.batches[index], self.root, self.preprocess)
        except DataError as error:
            return error  # if it were raised here, torch's loader would wrap it
