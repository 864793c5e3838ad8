"""Batcher: prepared images of many requests through the engine, a batch at a time."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rootstock.predict import Inferred, Predictor

_log = logging.getLogger("rootstock.service")


class Row(NamedTuple):
    """One image's probabilities float[K] and features float32[D]."""

    probabilities: np.ndarray
    features: np.ndarray


@dataclass
class _Item:
    predictor: Predictor
    prepared: np.ndarray
    answer: asyncio.Future[Row]
    since: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class Batch:
    """What is told of each batch: its size, how long its first image waited, and the engine."""

    size: int
    waited: float
    seconds: float


class Batcher:
    """Lanes take what is waiting, as soon as they are free; each runs the engine in a thread.

    A batch that fails is halved until the image that spoils it fails alone.

    Args:
        lanes: batches on the engine at once.
        max_batch: images in one.
        max_delay: seconds that a batch which is not full waits for more while another lane is
            at work; with an idle engine nothing ever waits.
        told: called with each `Batch`.
    """

    def __init__(
        self,
        *,
        lanes: int,
        max_batch: int,
        max_delay: float = 0.0,
        told: Callable[[Batch], None] = lambda _batch: None,
    ) -> None:
        self._lanes = lanes
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._told = told
        self._queue: deque[_Item] = deque()
        self._wake = asyncio.Event()
        self._idle = 0
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="engine")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the lanes."""
        self._tasks = [asyncio.ensure_future(self._lane()) for _ in range(self._lanes)]

    def stop(self) -> None:
        """End the lanes; what still waits is cancelled."""
        for task in self._tasks:
            task.cancel()
        for item in self._queue:
            item.answer.cancel()
        self._threads.shutdown(wait=False)

    async def submit(self, predictor: Predictor, prepared: np.ndarray) -> Row:
        """What the engine makes of one prepared image; a cancelled caller's image is dropped."""
        item = _Item(predictor, prepared, asyncio.get_running_loop().create_future())
        self._queue.append(item)
        self._wake.set()
        return await item.answer

    async def run(self, work: Callable[..., Inferred], *arguments: Any) -> Inferred:
        """Other work for the engine's threads, past the queue."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _lane(self) -> None:
        while True:
            self._idle += 1
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            if self._max_delay and self._idle < self._lanes:
                await self._gather()
            batch = self._take()
            self._idle -= 1
            if batch:
                await self._run(batch)

    async def _gather(self) -> None:
        """Wait for a full batch while the engine has other work."""
        until = time.perf_counter() + self._max_delay
        while 0 < len(self._queue) < self._max_batch and self._idle < self._lanes:
            left = until - time.perf_counter()
            if left <= 0:
                return
            await asyncio.sleep(min(left, self._max_delay / 4))

    def _take(self) -> list[_Item]:
        """The next images of one model, sharing what waits with the other idle lanes."""
        most = min(self._max_batch, math.ceil(len(self._queue) / max(1, self._idle)))
        batch: list[_Item] = []
        while self._queue and len(batch) < most:
            if batch and self._queue[0].predictor is not batch[0].predictor:
                break
            item = self._queue.popleft()
            if not item.answer.done():
                batch.append(item)
        return batch

    async def _run(self, batch: Sequence[_Item]) -> None:
        waited = time.perf_counter() - batch[0].since
        started = time.perf_counter()
        try:
            found = await self.run(batch[0].predictor.infer, [item.prepared for item in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the lane
            if len(batch) == 1:
                _log.error("the engine failed on an image: %s", error)
                _fail(batch[0], error)
                return
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                await self._run(half)
            return
        self._told(Batch(len(batch), waited, time.perf_counter() - started))
        for item, probabilities, features in zip(batch, *found, strict=True):
            if not item.answer.done():
                item.answer.set_result(Row(probabilities, features))


def _fail(item: _Item, error: Exception) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)
