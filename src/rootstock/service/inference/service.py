"""What all routes share: decoding, the engine, and the limits on both."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from rootstock.errors import BundleError, ExplainError, ImageError, RootstockError
from rootstock.evaluate.feedback import LiveScore
from rootstock.explain.heat_map import explain_images
from rootstock.explain.similar import ImageIndex
from rootstock.model.predictor import Predictor
from rootstock.service.http.problems import Problem
from rootstock.service.inference.batcher import Row
from rootstock.service.inference.resources import Resources
from rootstock.service.models.challenger import Challenger
from rootstock.service.models.holder import ModelHolder
from rootstock.service.settings import Settings
from rootstock.service.watch.drift import Drift
from rootstock.service.watch.telemetry import ModelState
from rootstock.service.watch.tracing import tracer

_log = logging.getLogger("rootstock.service")
_MAX_RETRY_SECONDS = 30
_PACE_MEMORY = 0.9
"""Weight of the previous pace when an answer updates it."""

Outcome = Row | ImageError | Problem
"""The model's row for one image, or the reason why the image is unusable or was lost."""


class Caller(Protocol):
    """The client that waits for an answer, such as an HTTP request."""

    @property
    def state(self) -> Any: ...

    @property
    def receive(self) -> Receive: ...


class Service:
    """One model of this process: its versions, limits and watchers.

    Args:
        name: the model's name in requests.
        settings: those of the process.
        resources: shared with other models.
        holder: the model in use.
        challenger: a second model, if any.
        index: folder of the index for similar images; None uses the training images.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        resources: Resources,
        holder: ModelHolder,
        challenger: ModelHolder | None = None,
        index: Path | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.resources = resources
        self.holder = holder
        self.drift = Drift(settings.drift_window)
        self.tried = False
        """Whether an attempt to load the model was made."""
        self.in_flight = 0
        """Images that were accepted and are not answered yet."""
        self.telemetry = resources.telemetry
        self.journal = resources.journal
        self.decoders, self.batcher = resources.decoders, resources.batcher
        self._index: ImageIndex | None = None
        self._index_folder = index
        self._image_seconds = 0.0
        self._last_answer = 0.0
        holder.on_swap = partial(self.telemetry.count_swap, name, "champion")
        if challenger is not None:
            challenger.on_swap = partial(self.telemetry.count_swap, name, "challenger")
        self.challenger = Challenger(challenger, settings, self.infer) if challenger else None

    def open_index(self, predictor: Predictor) -> ImageIndex:
        """Return the index to search, which is read once per model.

        Raises:
            Problem: This model has no index.
        """
        if self._index is None or self._index.model != predictor.bundle.digest:
            try:
                if self._index_folder:
                    self._index = ImageIndex.read(self._index_folder, predictor)
                else:
                    self._index = ImageIndex.of_reference(predictor)
            except RootstockError as error:
                raise Problem("not-found", f"{error.message} ({error.hint})") from None
        return self._index

    def live_score(self) -> LiveScore | None:
        """Return what recent feedback says of the model in use; None: nothing."""
        feedback = self.resources.feedback
        if feedback is None or not self.holder.ready:
            return None
        info = self.holder.predictor.info
        return feedback.score(info["name"], info["version"], window=self.settings.drift_window)

    def state(self) -> ModelState:
        """Return the values for /metrics."""
        predictor = self.holder.predictor if self.holder.ready else None
        return ModelState(
            self.name,
            predictor,
            ready=self.ready,
            queue=self.in_flight,
            registry_up=self.holder.registry_up,
            drift=self.drift.scores(predictor) if predictor else {},
            live=self.live_score(),
            estimate=self.drift.estimate(predictor) if predictor else None,
        )

    @property
    def ready(self) -> bool:
        """Whether the service is ready for requests."""
        return self.holder.ready and self.resources.ready

    def crowded(self, images: int = 1) -> Problem | None:
        """Return the problem with accepting this many more images, or None.

        An idle service accepts a request of any size: waiting would not make it fit.
        """
        if not self.in_flight or self.in_flight + images <= self.settings.max_queue:
            return None
        return Problem(
            "overloaded",
            f"{self.in_flight} images are already waiting.",
            headers={"Retry-After": str(self._seconds_of_queue())},
        )

    async def infer(
        self, predictor: Predictor, content: bytes, explained: str | None = None
    ) -> Row | ImageError:
        """Decode one image and run the model on it; return an ImageError if it is unusable.

        ``explained`` names the output to make a heat map of; empty: the answer; None: no heat map.

        Raises:
            ExplainError: This model does not support this explanation.
        """
        try:
            with tracer.start_as_current_span("decode"):
                prepared = await self.decoders.prepare(predictor, content)
        except ImageError as error:
            return error
        with tracer.start_as_current_span("infer"):
            if explained is None:
                row = await self.batcher.submit(predictor, prepared.views)
            else:
                work = partial(
                    explain_images, predictor, [prepared.views], output=explained, method="maps"
                )
                (one,) = await self.batcher.run(work)
                row = Row(one.decision, one.features, heat_maps=one.heat_maps)
        return row._replace(size=prepared.size)

    async def infer_tensor(
        self, request: Caller, predictor: Predictor, images: np.ndarray
    ) -> list[Row]:
        """Run the model on network inputs float32[N,3,S,S].

        Raises:
            Problem: The service is overloaded or too late (503), or the model failed (500).
            ClientDisconnect: The client has disconnected.
        """
        work = partial(self.batcher.run, predictor.infer_normalised, images, "one")
        inferred = await self._run_in_time(request, work, len(images))
        height, width = images.shape[2:]
        return [
            Row(decision, features, (width, height))
            for decision, features in zip(*inferred, strict=True)
        ]

    async def answer(
        self,
        request: Caller,
        predictor: Predictor,
        contents: Sequence[bytes],
        explained: str | None = None,
    ) -> list[Outcome]:
        """Return the outcome of each image, within the deadline and while the client waits.

        ``explained`` is as in `infer`.

        If the model fails on an image, or its decoder is lost, the others are not affected.
        Raises:
            Problem: The service is overloaded or too late, or every image was lost (503), or the
                model failed on all images (500).
            ClientDisconnect: The client has disconnected.
        """
        work = partial(self._outcomes, predictor, contents, explained)
        outcomes: list[Outcome] = await self._run_in_time(request, work, len(contents))
        problems = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
        if problems and len(problems) == len(outcomes):
            raise problems[0]
        return outcomes

    async def _run_in_time(
        self, request: Caller, begin: Callable[[], Coroutine[Any, Any, Any]], images: int
    ) -> Any:
        """Return the result of the work on ``images`` images, if there is room and time for it."""
        if problem := self.crowded(images):
            raise problem
        self.in_flight += images
        work = asyncio.ensure_future(begin())
        leaving = asyncio.ensure_future(_wait_for_disconnect(request))
        try:
            await asyncio.wait(
                (work, leaving),
                timeout=self.settings.deadline_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                self._note_answer(images)
                return work.result()
            if leaving.done():
                raise ClientDisconnect
            raise Problem(
                "too-late",
                f"No answer within {self.settings.deadline_seconds:g} seconds.",
                headers={"Retry-After": str(self._seconds_of_queue())},
            )
        except BundleError as error:
            raise _failed_model() from error
        finally:
            work.cancel()
            leaving.cancel()
            self.in_flight -= images

    async def _outcomes(
        self, predictor: Predictor, contents: Sequence[bytes], explained: str | None
    ) -> list[Outcome]:
        if len(contents) == 1:
            return [await self._outcome(predictor, contents[0], explained)]
        work = (self._outcome(predictor, content, explained) for content in contents)
        return await asyncio.gather(*work)

    async def _outcome(
        self, predictor: Predictor, content: bytes, explained: str | None
    ) -> Outcome:
        try:
            return await self.infer(predictor, content, explained)
        except Problem as problem:
            return problem
        except ExplainError as error:
            return Problem("invalid-request", f"explain: {error.message} ({error.hint})")
        except Exception:  # noqa: BLE001 - an error of one image must not cost the others
            _log.exception("an image was lost")
            return _failed_model()

    def _note_answer(self, images: int) -> None:
        now = time.monotonic()
        # A pause between requests does not make the service slow.
        seconds = min((now - self._last_answer) / images, 1.0)
        self._last_answer = now
        self._image_seconds += (1 - _PACE_MEMORY) * (seconds - self._image_seconds)

    def _seconds_of_queue(self) -> int:
        """Return how long the current queue takes at the current pace, for Retry-After."""
        return max(1, min(_MAX_RETRY_SECONDS, math.ceil(self.in_flight * self._image_seconds)))


def _failed_model() -> Problem:
    return Problem("internal", "The model failed on an image.")


async def _wait_for_disconnect(request: Caller) -> None:
    """Wait until the client leaves; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
