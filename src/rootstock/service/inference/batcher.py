"""Batches of prepared images, from many requests, for the engine."""

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
from typing import Any, NamedTuple, TypeVar

import numpy as np

from rootstock.explain.heat_map import HeatMap
from rootstock.model.predictor import Inferred, Predictor

_log = logging.getLogger("rootstock.service")
STUCK_SECONDS = 60.0
"""A batch that takes longer never ends: the engine hangs, and only a restart helps."""


Result = TypeVar("Result")


class Row(NamedTuple):
    """One image's decision [...], features float32[D], width, and height.

    It includes the heat maps if the request asked for them.
    """

    decision: np.ndarray
    features: np.ndarray
    size: tuple[int, int] = (1, 1)
    heat_maps: tuple[HeatMap, ...] = ()


@dataclass
class _Item:
    predictor: Predictor
    prepared: np.ndarray
    answer: asyncio.Future[Row]
    arrival: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class Batch:
    """A batch: its model and size, seconds its first image waited, and seconds in the engine."""

    predictor: Predictor
    size: int
    wait_seconds: float
    engine_seconds: float


class Batcher:
    """Lanes that take waiting images as soon as they are free, and run the engine in threads.

    A thread continues with the next batch without the event loop, so a busy loop never leaves the
    engine idle. A batch that fails is split in half until only the image that breaks it fails.

    Args:
        lanes: batches on the engine at once.
        max_batch: images per batch; None uses the model's fastest size (`best_batch`).
        max_delay: seconds that an incomplete batch waits for more images while another lane
            works. If the engine is idle, no batch waits.
        on_batch: called with each `Batch`.
    """

    def __init__(
        self,
        *,
        lanes: int,
        max_batch: int | None,
        max_delay: float = 0.0,
        on_batch: Callable[[Batch], None] = lambda _batch: None,
    ) -> None:
        self._lanes = lanes
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._on_batch = on_batch
        self._queue: deque[_Item] = deque()
        self._queue_lock = threading.Lock()
        self._wake = asyncio.Event()
        self._idle = 0
        """Lanes without a batch."""
        self._runs = 0
        """Calls of `run` that have a thread or wait for one."""
        self._starts: dict[int, float] = {}
        """Time at which each thread entered the engine, by thread id."""
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="engine")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the lanes."""
        self._tasks = [asyncio.ensure_future(self._lane()) for _ in range(self._lanes)]

    def stop(self) -> None:
        """Stop the lanes and cancel the waiting images."""
        for task in self._tasks:
            task.cancel()
        for item in self._queue:
            item.answer.cancel()
        self._threads.shutdown(wait=False)

    @property
    def stuck(self) -> bool:
        """Whether every lane has been in the engine for longer than any batch takes."""
        latest = time.perf_counter() - STUCK_SECONDS
        starts = list(self._starts.values())
        return len(starts) >= self._lanes and all(start < latest for start in starts)

    async def submit(self, predictor: Predictor, prepared: np.ndarray) -> Row:
        """Run the engine on one prepared image. The image of a cancelled caller is dropped."""
        item = _Item(predictor, prepared, asyncio.get_running_loop().create_future())
        self._queue.append(item)
        self._wake.set()
        return await item.answer

    async def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run other work in the engine's threads, bypassing the queue."""
        loop = asyncio.get_running_loop()
        self._runs += 1
        try:
            return await loop.run_in_executor(self._threads, self._run_timed, work, *arguments)
        finally:
            self._runs -= 1

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
                await loop.run_in_executor(self._threads, self._run_batches, loop, batch)

    async def _gather(self) -> None:
        """Wait for a full batch while the engine has other work."""
        deadline = time.perf_counter() + self._max_delay
        while self._queue and self._idle < self._lanes:
            if len(self._queue) >= self._limit(self._queue[0]):
                return
            left = deadline - time.perf_counter()
            if left <= 0:
                return
            await asyncio.sleep(min(left, self._max_delay / 4))

    def _take(self) -> list[_Item]:
        """Take the next images of one model, leaving a share to each other idle lane."""
        batch: list[_Item] = []
        with self._queue_lock:
            share = math.ceil(len(self._queue) / max(1, self._idle))
            while self._queue and len(batch) < min(share, self._limit(self._queue[0])):
                if batch and self._queue[0].predictor is not batch[0].predictor:
                    break
                item = self._queue.popleft()
                if not item.answer.done():
                    batch.append(item)
        return batch

    def _limit(self, item: _Item) -> int:
        return self._max_batch or item.predictor.best_batch

    def _run_batches(self, loop: asyncio.AbstractEventLoop, batch: list[_Item]) -> None:
        """Run this batch in a thread, then the waiting images until none are left."""
        while batch:
            self._run_batch(loop, batch)
            # The lane collects a fuller batch, or lets other work have the thread.
            batch = [] if self._max_delay or self._runs else self._take()

    def _run_batch(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Item]) -> None:
        started = time.perf_counter()
        try:
            rows = self._run_timed(batch[0].predictor.infer, [item.prepared for item in batch])
        except Exception as error:  # noqa: BLE001 - no error of the engine may end the lane
            if len(batch) == 1:
                _log.error("the engine failed on an image: %s", error)
                _call_in_loop(loop, _fail_item, batch[0], error)
                return
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._run_batch(loop, half)
            return
        seconds = time.perf_counter() - started
        summary = Batch(batch[0].predictor, len(batch), started - batch[0].arrival, seconds)
        _call_in_loop(loop, self._answer_items, batch, rows, summary)

    def _run_timed(self, work: Callable[..., Result], *arguments: Any) -> Result:
        thread = threading.get_ident()
        self._starts[thread] = time.perf_counter()
        try:
            return work(*arguments)
        finally:
            del self._starts[thread]

    def _answer_items(self, batch: Sequence[_Item], rows: Inferred, summary: Batch) -> None:
        self._on_batch(summary)
        for item, decision, features in zip(batch, *rows, strict=True):
            if not item.answer.done():
                item.answer.set_result(Row(decision, features))


def _call_in_loop(
    loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended together with its requests
        loop.call_soon_threadsafe(call, *arguments)


def _fail_item(item: _Item, error: Exception) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)
