"""Batcher: prepared images of many requests through the engine, a batch at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rootstock.model.predictor import Inferred, Predictor

_log = logging.getLogger("rootstock.service")
STUCK_SECONDS = 60.0
"""No batch takes so long: the engine hangs, and only the end of the process helps."""


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

    A thread goes on with what waits by itself: a busy event loop never keeps the engine idle.
    A batch that fails is halved until the image that spoils it fails alone.

    Args:
        lanes: batches on the engine at once.
        max_batch: images in one; None: what each model is fastest with (`best_batch`).
        max_delay: seconds that a batch which is not full waits for more while another lane is
            at work; with an idle engine nothing ever waits.
        told: called with each `Batch`.
    """

    def __init__(
        self,
        *,
        lanes: int,
        max_batch: int | None,
        max_delay: float = 0.0,
        told: Callable[[Batch], None] = lambda _batch: None,
    ) -> None:
        self._lanes = lanes
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._told = told
        self._queue: deque[_Item] = deque()
        self._taking = threading.Lock()
        self._wake = asyncio.Event()
        self._idle = 0
        self._others = 0
        """Calls of `run` that wait for a thread, or have one."""
        self._begun: dict[int, float] = {}
        """Since when each thread has been in the engine."""
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

    @property
    def stuck(self) -> bool:
        """Whether every lane has been in the engine for longer than any batch takes."""
        late = time.perf_counter() - STUCK_SECONDS
        begun = list(self._begun.values())
        return len(begun) >= self._lanes and all(since < late for since in begun)

    async def submit(self, predictor: Predictor, prepared: np.ndarray) -> Row:
        """What the engine makes of one prepared image; a cancelled caller's image is dropped."""
        item = _Item(predictor, prepared, asyncio.get_running_loop().create_future())
        self._queue.append(item)
        self._wake.set()
        return await item.answer

    async def run(self, work: Callable[..., Inferred], *arguments: Any) -> Inferred:
        """Other work for the engine's threads, past the queue."""
        loop = asyncio.get_running_loop()
        self._others += 1
        try:
            return await loop.run_in_executor(self._threads, self._watched, work, *arguments)
        finally:
            self._others -= 1

    async def _lane(self) -> None:
        loop = asyncio.get_running_loop()
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
                await loop.run_in_executor(self._threads, self._work, loop, batch)

    async def _gather(self) -> None:
        """Wait for a full batch while the engine has other work."""
        until = time.perf_counter() + self._max_delay
        while self._queue and self._idle < self._lanes:
            if len(self._queue) >= self._most(self._queue[0]):
                return
            left = until - time.perf_counter()
            if left <= 0:
                return
            await asyncio.sleep(min(left, self._max_delay / 4))

    def _take(self) -> list[_Item]:
        """The next images of one model, sharing what waits with the other idle lanes."""
        batch: list[_Item] = []
        with self._taking:
            share = math.ceil(len(self._queue) / max(1, self._idle))
            while self._queue and len(batch) < min(share, self._most(self._queue[0])):
                if batch and self._queue[0].predictor is not batch[0].predictor:
                    break
                item = self._queue.popleft()
                if not item.answer.done():
                    batch.append(item)
        return batch

    def _most(self, item: _Item) -> int:
        return self._max_batch or item.predictor.best_batch

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[_Item]) -> None:
        """In a thread: this batch, and then what waits, until nothing does."""
        while batch:
            self._run(loop, batch)
            # Back to the lane: to gather a fuller batch, or to let other work have the thread.
            batch = [] if self._max_delay or self._others else self._take()

    def _run(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Item]) -> None:
        started = time.perf_counter()
        try:
            found = self._watched(batch[0].predictor.infer, [item.prepared for item in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the lane
            if len(batch) == 1:
                _log.error("the engine failed on an image: %s", error)
                _deliver(loop, _fail, batch[0], error)
                return
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._run(loop, half)
            return
        seconds = time.perf_counter() - started
        told = Batch(len(batch), started - batch[0].since, seconds)
        _deliver(loop, self._answer, batch, found, told)

    def _watched(self, work: Callable[..., Inferred], *arguments: Any) -> Inferred:
        thread = threading.get_ident()
        self._begun[thread] = time.perf_counter()
        try:
            return work(*arguments)
        finally:
            del self._begun[thread]

    def _answer(self, batch: Sequence[_Item], found: Inferred, told: Batch) -> None:
        self._told(told)
        for item, probabilities, features in zip(batch, *found, strict=True):
            if not item.answer.done():
                item.answer.set_result(Row(probabilities, features))


def _deliver(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and everybody who asked with it
        loop.call_soon_threadsafe(call, *arguments)


def _fail(item: _Item, error: Exception) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)
