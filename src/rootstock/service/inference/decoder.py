"""Decoding in worker processes, which may crash, hang, or run out of memory safely."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np

from rootstock.data.views import FORWARD_PASSES
from rootstock.errors import ImageError
from rootstock.model.predictor import Predictor, Prepared
from rootstock.service.http.problems import Problem
from rootstock.service.inference.decode_worker import recipe_bytes
from rootstock.service.models.proof import passed_environment
from rootstock.system.isolation import shares_network
from rootstock.system.malloc import SERVICE_BYTES, keeping_variables

_log = logging.getLogger("rootstock.service")

_SOCKET_BUFFER_BYTES = 2**20
_MAX_ERROR_BYTES = 2**16
WATCH_SECONDS = 1.0
# Workers keep freed memory: requesting it from the system again costs a tenth of the time.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", **keeping_variables(SERVICE_BYTES)}


class DecodePool:
    """A pool of ``size`` worker processes with at most one image each.

    Args:
        size: worker processes.
        seconds: time limit per image, after which its worker is killed.
        memory: bytes that decoding one image may take.
        on_event: called with "queue" or "decode", the seconds that an image spent there, and its
            model; and with "lost" when a worker had to be replaced.
    """

    def __init__(
        self,
        size: int,
        *,
        seconds: float,
        memory: int,
        on_event: Callable[[str, float, Predictor | None], None] = lambda *_: None,
    ) -> None:
        self.size = size
        self._on_event = on_event
        self._seconds = seconds
        self._memory = memory
        self._workers: set[_Worker] = set()
        self._free: deque[_Worker] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = self._checked = False
        self._recipes: WeakKeyDictionary[Predictor, bytes] = WeakKeyDictionary()
        self._waiters: deque[asyncio.Future[_Worker]] = deque()

    @property
    def alive(self) -> bool:
        """Whether at least one worker is running."""
        return any(worker.alive for worker in self._workers)

    async def start(self) -> None:
        """Start the workers, and replace idle ones that die."""
        for _ in range(self.size):
            self._release(await self._spawn())
        self._run_task(self._watch())

    def stop(self) -> None:
        """Stop the workers; the images in them are lost."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        self._free.clear()

    async def prepare(self, predictor: Predictor, content: bytes) -> Prepared:
        """Return the views of an encoded image and its size, like `Predictor.prepare_sized`.

        Raises:
            ImageError: The image cannot be used; ``too-slow`` if decoding took too long.
            Problem: The worker was lost (503).
        """
        arrival = time.perf_counter()
        worker = await self._acquire()
        self._on_event("queue", time.perf_counter() - arrival, predictor)
        size = predictor.bundle.preprocess.input_size
        shape = (FORWARD_PASSES[predictor.bundle.facts.views], size, size, 3)
        max_bytes = max(9 + math.prod(shape), _MAX_ERROR_BYTES)
        job = worker.submit(self._recipe(predictor), content, max_bytes, self._seconds)
        job.add_done_callback(partial(self._finish, worker, predictor, time.perf_counter()))
        # The job runs on if the caller leaves: the worker could not stop in the middle.
        answer = await asyncio.shield(job)
        if answer[0] == ord("-"):
            error = json.loads(bytes(answer[1:]))
            raise ImageError(error["reason"], error["message"])
        sides = (int.from_bytes(answer[start : start + 4], "big") for start in (1, 5))
        views = np.frombuffer(answer, np.uint8, offset=9).reshape(shape)
        return Prepared(views, (next(sides), next(sides)))

    def _finish(
        self, worker: _Worker, predictor: Predictor, start: float, job: asyncio.Future[memoryview]
    ) -> None:
        # exception() also marks the error as retrieved, in case the caller has left.
        if job.cancelled() or job.exception() is not None:
            # The worker is busy, dead, or in the middle of a frame.
            self._replace(worker)
            return
        self._release(worker)
        self._on_event("decode", time.perf_counter() - start, predictor)
        if not self._checked:
            self._checked = True
            if shares_network(worker.process.pid):
                _log.warning(
                    "decoders share the service's network: the system allows no separate namespace"
                )

    def _recipe(self, predictor: Predictor) -> bytes:
        if predictor not in self._recipes:
            bundle = predictor.bundle
            self._recipes[predictor] = recipe_bytes(
                bundle.preprocess, bundle.facts.views, predictor.limits
            )
        return self._recipes[predictor]

    async def _acquire(self) -> _Worker:
        while self._free:
            worker = self._free.popleft()
            if worker.alive:
                return worker
            self._replace(worker)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._release(waiter.result())
            raise

    def _release(self, worker: _Worker) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        self._free.append(worker)

    def _replace(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        worker.kill()
        if self._stopped:
            return
        self._on_event("lost", 0.0, None)
        self._run_task(self._add_worker())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for worker in [worker for worker in self._free if not worker.alive]:
                self._free.remove(worker)
                self._replace(worker)

    def _run_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in the background until it or the service ends."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _add_worker(self) -> None:
        while True:
            try:
                self._release(await self._spawn())
            except OSError as error:
                _log.error("cannot start a decoder, trying again: %s", error)
                await asyncio.sleep(1)
            else:
                return

    async def _spawn(self) -> _Worker:
        worker = await _Worker.start(self._memory)
        self._workers.add(worker)
        return worker


class _Worker(asyncio.BufferedProtocol):
    """One process and the socket to it. Answers are read without a copy."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._transport: asyncio.Transport | None = None
        self._job: asyncio.Future[memoryview] | None = None
        self._max_bytes = 0
        self._frame, self._filled, self._is_header = memoryview(bytearray(4)), 0, True

    @classmethod
    async def start(cls, memory: int) -> _Worker:
        own_end, worker_end = socket.socketpair()
        for end in (own_end, worker_end):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        source = Path(__file__).parents[3]
        path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
        with worker_end:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "rootstock.service.inference.decode_worker"),
                    *(str(worker_end.fileno()), str(memory)),
                ],
                pass_fds=[worker_end.fileno()],
                stdin=subprocess.DEVNULL,
                env=passed_environment() | {"PYTHONPATH": path} | _ENVIRONMENT,
            )
        own_end.setblocking(False)
        worker = cls(process)
        await asyncio.get_running_loop().create_unix_connection(lambda: worker, sock=own_end)
        return worker

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def submit(
        self, recipe: bytes, content: bytes, max_bytes: int, seconds: float
    ) -> asyncio.Future[memoryview]:
        """Send one job. Its answer may have ``max_bytes`` and take ``seconds``."""
        loop = asyncio.get_running_loop()
        self._max_bytes = max_bytes
        self._job = job = loop.create_future()
        if self._transport is None or self._transport.is_closing():
            self._fail(_lost())
            return job
        late = ImageError("too-slow", f"decoding it took more than {seconds:g} seconds")
        timer = loop.call_later(seconds, self._fail, late)
        job.add_done_callback(lambda _job: timer.cancel())
        # A single call, which does not copy the image.
        sizes = (len(part).to_bytes(4, "big") for part in (recipe, content))
        self._transport.writelines([next(sizes), recipe, next(sizes), content])
        return job

    def kill(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self.process.kill()
        self.process.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._fail(_lost())

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._frame[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._frame):
            return
        frame, is_header = self._frame, self._is_header
        self._await_header()
        if not is_header:
            if self._job is not None and not self._job.done():
                self._job.set_result(frame)
            return
        length = int.from_bytes(frame, "big")
        if self._job is None or self._job.done() or not 0 < length <= self._max_bytes:
            self._fail(_lost())  # the worker sent an unexpected answer
            self.process.kill()
            return
        self._frame, self._is_header = memoryview(bytearray(length)), False

    def _await_header(self) -> None:
        self._frame, self._filled, self._is_header = memoryview(bytearray(4)), 0, True

    def _fail(self, error: Exception) -> None:
        if self._job is not None and not self._job.done():
            self._job.set_exception(error)


def _lost() -> Problem:
    return Problem(
        "lost", "The process that decoded the image ended.", headers={"Retry-After": "1"}
    )
