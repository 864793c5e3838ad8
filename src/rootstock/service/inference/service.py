"""What all routes share: the way of an image through decoding and engine, and its limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import numpy as np
from fastapi import Request
from starlette.requests import ClientDisconnect

from rootstock.errors import BundleError, ImageError
from rootstock.model.predictor import Predictor
from rootstock.service.http.problems import Problem
from rootstock.service.inference.batcher import Batch, Batcher, Row
from rootstock.service.inference.decoder import DecodePool
from rootstock.service.models.challenger import Challenger
from rootstock.service.models.holder import ModelHolder
from rootstock.service.settings import Settings
from rootstock.service.watch.drift import Drift
from rootstock.service.watch.journal import Journal
from rootstock.service.watch.telemetry import Telemetry
from rootstock.service.watch.tracing import tracer

_log = logging.getLogger("rootstock.service")
_LONGEST_WAIT = 30
_MEMORY = 0.9

Outcome = Row | ImageError | Problem
"""Of one image: what the model makes of it, or why it could not be used, or was lost."""


class Service:
    """What the routes need; one object per app, at work inside `running`."""

    def __init__(
        self, settings: Settings, holder: ModelHolder, challenger: ModelHolder | None = None
    ) -> None:
        self.settings = settings
        self.holder = holder
        self.telemetry = Telemetry()
        self.drift = Drift(settings.drift_window)
        self.draining = False
        self.in_flight = 0
        """Images that were taken in and are not yet answered."""
        self._seconds_each = 0.0
        self._last_answer = 0.0
        holder.on_swap = partial(self._count_swap, "champion")
        if challenger is not None:
            challenger.on_swap = partial(self._count_swap, "challenger")
        self.decoders = DecodePool(
            settings.decoders,
            seconds=settings.decode_seconds,
            memory=settings.decode_memory_bytes,
            told=self._time_stage,
        )
        self.batcher = Batcher(
            lanes=settings.lanes,
            max_batch=settings.max_batch,
            max_delay=settings.max_delay_ms / 1000,
            told=self._count_batch,
        )
        self.journal = (
            Journal(settings.journal, images=settings.journal_images) if settings.journal else None
        )
        self.challenger = Challenger(challenger, settings, self.infer) if challenger else None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Decoders and lanes are there inside."""
        await self.decoders.start()
        self.batcher.start()
        writing = asyncio.ensure_future(self.journal.keep_writing()) if self.journal else None
        try:
            yield
        finally:
            if writing is not None:
                writing.cancel()
            self.batcher.stop()
            self.decoders.stop()
            if self.journal is not None:
                self.journal.write()

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here: a model, living decoders, an engine that does not
        hang, and no end in sight."""
        able = self.holder.ready and self.decoders.alive and not self.batcher.stuck
        return able and not self.draining

    def crowded(self, images: int = 1) -> Problem | None:
        """The problem of taking in this many images more, or None.

        With nothing to do a request is taken whatever its size: it would never fit better.
        """
        if not self.in_flight or self.in_flight + images <= self.settings.max_queue:
            return None
        return Problem(
            "overloaded",
            f"{self.in_flight} images are waiting already.",
            headers={"Retry-After": str(self._seconds_of_queue())},
        )

    async def infer(self, predictor: Predictor, content: bytes) -> Row | ImageError:
        """Decode one image and run the model on it; an ImageError if it cannot be used."""
        try:
            with tracer.start_as_current_span("decode"):
                prepared = await self.decoders.prepare(predictor, content)
        except ImageError as error:
            return error
        with tracer.start_as_current_span("infer"):
            return await self.batcher.submit(predictor, prepared)

    async def infer_tensor(
        self, request: Request, predictor: Predictor, images: np.ndarray
    ) -> list[Row]:
        """What the model makes of network inputs float32[N,3,S,S].

        Raises:
            Problem: too much to do or too late (503), or the model failed (500).
            ClientDisconnect: nobody is left to read the answer.
        """
        work = partial(self.batcher.run, predictor.infer_normalised, images, "one")
        found = await self._in_time(request, work, len(images))
        return [Row(*row) for row in zip(*found, strict=True)]

    async def answer(
        self, request: Request, predictor: Predictor, contents: Sequence[bytes]
    ) -> list[Outcome]:
        """The outcome of each image, in time and only as long as the client is there.

        An image that the model fails on, or whose decoder is lost, leaves the others alone.
        Raises:
            Problem: too much to do, too late, or every image lost (503); the model failed on
                them all (500).
            ClientDisconnect: nobody is left to read the answer.
        """
        work = partial(self._outcomes, predictor, contents)
        outcomes: list[Outcome] = await self._in_time(request, work, len(contents))
        problems = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
        if problems and len(problems) == len(outcomes):
            raise problems[0]
        return outcomes

    async def _in_time(
        self, request: Request, begin: Callable[[], Coroutine[Any, Any, Any]], images: int
    ) -> Any:
        """What the work on so many images returns, if there is room for it, and time."""
        if problem := self.crowded(images):
            raise problem
        self.in_flight += images
        work = asyncio.ensure_future(begin())
        left = asyncio.ensure_future(_has_left(request))
        try:
            await asyncio.wait(
                (work, left),
                timeout=self.settings.deadline_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                self._note_answer(images)
                return work.result()
            if left.done():
                raise ClientDisconnect
            raise Problem(
                "too-late",
                f"No answer within {self.settings.deadline_seconds:g} seconds.",
                headers={"Retry-After": str(self._seconds_of_queue())},
            )
        except BundleError as error:
            raise _model_failed() from error
        finally:
            work.cancel()
            left.cancel()
            self.in_flight -= images

    async def _outcomes(self, predictor: Predictor, contents: Sequence[bytes]) -> list[Outcome]:
        if len(contents) == 1:
            return [await self._outcome(predictor, contents[0])]
        work = (self._outcome(predictor, content) for content in contents)
        return await asyncio.gather(*work)

    async def _outcome(self, predictor: Predictor, content: bytes) -> Outcome:
        try:
            return await self.infer(predictor, content)
        except Problem as problem:
            return problem
        except Exception:  # noqa: BLE001 - whatever it is, it is this image's alone
            _log.exception("an image was lost")
            return _model_failed()

    def _note_answer(self, images: int) -> None:
        now = time.monotonic()
        # A pause is no sign of slowness
        each = min((now - self._last_answer) / images, 1.0)
        self._last_answer = now
        self._seconds_each += (1 - _MEMORY) * (each - self._seconds_each)

    def _seconds_of_queue(self) -> int:
        """How long the present queue takes at the present pace, as Retry-After wants it."""
        return max(1, min(_LONGEST_WAIT, math.ceil(self.in_flight * self._seconds_each)))

    def _time_stage(self, stage: str, seconds: float) -> None:
        if stage == "lost":
            self.telemetry.lost_decoders.inc()
        else:
            self.telemetry.time_stage(stage, seconds)

    def _count_batch(self, batch: Batch) -> None:
        self.telemetry.batches.observe(batch.size)
        self.telemetry.time_stage("queue", batch.waited)
        self.telemetry.time_stage("infer", batch.seconds)

    def _count_swap(self, role: str, outcome: str) -> None:
        self.telemetry.swaps.labels(role, outcome).inc()


def _model_failed() -> Problem:
    return Problem("internal", "The model failed on an image.")


async def _has_left(request: Request) -> None:
    """Ends when the client does; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
