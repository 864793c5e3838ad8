"""What all routes share: the model holder, the counters, and a bounded way to do work."""

from __future__ import annotations

from functools import partial

import anyio
from anyio.to_thread import run_sync

from rootstock.errors import ImageError
from rootstock.predict import Prediction, Predictor
from services.inference.model_holder import ModelHolder
from services.inference.problems import Problem
from services.inference.settings import Settings
from services.inference.telemetry import Telemetry


class Service:
    """What the routes need; one object per app."""

    def __init__(self, settings: Settings, holder: ModelHolder) -> None:
        self.settings = settings
        self.holder = holder
        self.telemetry = Telemetry()
        self.limiter = anyio.CapacityLimiter(settings.threads)

    @property
    def waiting(self) -> int:
        return self.limiter.statistics().tasks_waiting

    def refuse_overload(self) -> None:
        if self.waiting > self.settings.max_waiting:
            raise Problem(
                "overloaded",
                f"{self.waiting} requests are waiting already; try again in a second.",
                headers={"Retry-After": "1"},
            )

    async def classify(
        self, predictor: Predictor, contents: list[bytes], top_k: int
    ) -> list[Prediction | ImageError]:
        """Decode and infer off the event loop, as many requests at once as there are threads."""
        work = partial(predictor.predict, contents, top_k=top_k)
        return await run_sync(work, limiter=self.limiter)
