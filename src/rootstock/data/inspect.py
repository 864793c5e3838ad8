"""Inspect every image once, in several processes: hash, size, mode, thumbnail or fault."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from rootstock.data.candidates import Thumbnail
from rootstock.data.decode import decode_grey, no_warnings
from rootstock.data.duplicates import thumbnail
from rootstock.data.limits import DecodeLimits
from rootstock.data.read import read_file
from rootstock.data.rendering import Tones
from rootstock.errors import DataError, ImageError
from rootstock.system.bounds import bound_memory, bound_seconds
from rootstock.system.cpu import usable_cores
from rootstock.system.failure import hush_interrupts
from rootstock.system.progress import Progress

CHUNK_IMAGES = 64
"""Images per task; also the smallest number for which extra processes are worth starting."""
MAX_SECONDS = 60
"""Processor seconds for one image; then the process ends and the image counts as crashed."""
MIN_LEVELS = 8
"""An image with a smaller range of grey levels is blank."""
_EDGE_SHARE = 0.005
"""Share of the pixels that may be darker or brighter than that range."""
BYTES_PER_PIXEL = 16
"""Memory that a process may use per image: pixels in the file's mode, and as RGB, twice."""


class Inspected(NamedTuple):
    """The result for one file; ``reason`` is empty for a usable image.

    ``changed`` and ``status_changed``: the times when content and entry last changed, in
    nanoseconds, taken before reading; None if it was not read. ``tones``: see `choose_rendering`;
    ``flat``: the image has one colour. A tuple, since workers send a hundred thousand of them.
    """

    sha256: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    reason: str = ""
    changed: int | None = None
    status_changed: int | None = None
    inode: int | None = None
    thumb: Thumbnail = b""
    tones: Tones = ()
    flat: bool = False


def inspect_image(path: Path | str, limits: DecodeLimits) -> Inspected:
    """Read and decode one file; return a fault as the ``reason``."""
    return _inspect_chunk([path], limits)[0]


def _inspect_chunk(paths: Sequence[Path | str], limits: DecodeLimits) -> list[Inspected]:
    with no_warnings():
        return [_inspect_file(path, limits) for path in paths]


def _inspect_file(path: Path | str, limits: DecodeLimits) -> Inspected:
    try:
        os.fspath(path).encode()
        content, status = read_file(path, limits)
    except UnicodeEncodeError:
        return Inspected(reason="file-name")
    except ImageError as error:
        return _describe_unread(path, error.reason)
    sha256, size = hashlib.sha256(content).hexdigest(), len(content)
    when = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    try:
        levels, mode, kind, tones = decode_grey(content, limits)
    except ImageError as error:
        return Inspected(sha256, size, 0, 0, "", "", error.reason, *when)
    thumb = thumbnail(levels)
    facts = (sha256, size, *levels.size, mode, kind, "", *when)
    return Inspected(*facts, thumb, tones, _is_flat(levels, thumb))


def _is_flat(levels: Image.Image, thumb: Thumbnail) -> bool:
    some = thumb[::7]  # a few pixels are enough for most images, and faster
    if max(some) - min(some) >= MIN_LEVELS or max(thumb) - min(thumb) >= MIN_LEVELS:
        return False
    counts = np.cumsum(levels.histogram())
    low, high = np.searchsorted(counts, counts[-1] * np.array([_EDGE_SHARE, 1 - _EDGE_SHARE]))
    return bool(high - low < MIN_LEVELS)


def _inspect_in_process(paths: Sequence[Path | str], limits: DecodeLimits) -> list[Inspected]:
    """Inspect a file in a worker process, which ends if an image takes too long."""
    results = []
    with no_warnings():
        for path in paths:
            bound_seconds(MAX_SECONDS)
            results.append(_inspect_file(path, limits))
    bound_seconds(0)
    return results


def _describe_unread(path: Path | str, reason: str) -> Inspected:
    try:
        status = os.stat(path)  # noqa: PTH116 - a path may be text
    except (OSError, ValueError):
        return Inspected(reason="missing")
    # Without a time of change, since the file may have changed after it was read.
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return Inspected(bytes=size, reason=reason)


def inspect_images(
    paths: Sequence[Path | str], *, limits: DecodeLimits, workers: int | None = None
) -> list[Inspected]:
    """Inspect files in ``workers`` processes (None: one per core), and keep their order.

    A file that crashes its process is quarantined as ``crashed``.
    Raises:
        DataError: no worker process can be started.
    """
    workers = workers or usable_cores()
    with Progress("index", len(paths), "image") as bar:
        if workers == 1 or len(paths) <= CHUNK_IMAGES:
            return [_counted(bar, inspect_image(path, limits)) for path in paths]
        chunks = [
            paths[start : start + CHUNK_IMAGES] for start in range(0, len(paths), CHUNK_IMAGES)
        ]
        results: dict[int, list[Inspected]] = {}
        waiting = list(range(len(chunks)))
        while waiting:
            for number, result in _spread(chunks, waiting, limits, workers):
                results[number] = result
                bar.update(len(result))
            lost = [number for number in waiting if number not in results]
            # Chunks start in order, so the image that crashed its process is in one of these
            for number in lost[: workers + 1]:
                results[number] = _one_by_one(chunks[number], limits)
                bar.update(len(results[number]))
            waiting = lost[workers + 1 :]
        return [image for number in range(len(chunks)) for image in results[number]]


def _spread(
    chunks: Sequence[Sequence[Path | str]],
    numbers: Sequence[int],
    limits: DecodeLimits,
    workers: int,
) -> Iterator[tuple[int, list[Inspected]]]:
    """Yield numbers and results of chunks; if a process dies, its unfinished chunks are lost."""
    with _pool(workers, limits) as pool:
        futures: list[Future[list[Inspected]]] = []
        with suppress(BrokenProcessPool):
            for number in numbers:
                futures.append(pool.submit(_inspect_in_process, chunks[number], limits))
        for number, future in zip(numbers, futures, strict=False):
            with suppress(BrokenProcessPool):
                yield number, future.result()


def _one_by_one(chunk: Sequence[Path | str], limits: DecodeLimits) -> list[Inspected]:
    _check_that_processes_start(limits)
    results: list[Inspected] = []
    while len(results) < len(chunk):
        with _pool(1, limits) as pool, suppress(BrokenProcessPool):
            for path in chunk[len(results) :]:
                results += pool.submit(_inspect_in_process, [path], limits).result()
        if len(results) < len(chunk):
            size = Path(chunk[len(results)]).stat().st_size
            results.append(Inspected(bytes=size, reason="crashed"))
    return results


def _check_that_processes_start(limits: DecodeLimits) -> None:
    """Check that workers start; otherwise every image would be blamed for the crash."""
    with _pool(1, limits) as pool:
        try:
            pool.submit(len, ()).result()
        except BrokenProcessPool:
            raise DataError(
                "the processes that decode images end as soon as they are started",
                hint="if a script calls the index, put the call below "
                "`if __name__ == '__main__':`; or set data.workers to 1",
            ) from None


def _pool(workers: int, limits: DecodeLimits) -> ProcessPoolExecutor:
    # Forking a process with running threads of torch can hang.
    context = multiprocessing.get_context("spawn")
    memory = BYTES_PER_PIXEL * limits.max_pixels + 4 * limits.max_bytes
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin_process, initargs=(memory,)
    )


def _begin_process(memory: int) -> None:
    hush_interrupts()
    bound_memory(memory)


def _counted(bar: Progress, result: Inspected) -> Inspected:
    bar.update()
    return result
