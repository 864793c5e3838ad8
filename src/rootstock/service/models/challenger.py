"""The challenger, which answers a share of requests in addition to the champion or instead."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from rootstock.errors import ImageError
from rootstock.model.predictor import Predictor
from rootstock.service.inference.batcher import Row
from rootstock.service.models.holder import ModelHolder
from rootstock.service.settings import Settings

Infer = Callable[[Predictor, bytes], Awaitable[Row | ImageError]]
MAX_SHADOWS = 4
"""Maximum shadow answers at once; further requests are skipped, so none waits."""
_MAX_TIMES = 10_000

_log = logging.getLogger("rootstock.service")


class Challenger:
    """Compares two models on live requests without delaying the answers.

    ``infer`` runs a model on one image.
    """

    def __init__(self, holder: ModelHolder, settings: Settings, infer: Infer) -> None:
        self.holder = holder
        self._settings = settings
        self._infer = infer
        self._random = random.Random(0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pair = ("", "")
        self._reset()

    def canary(self, champion: Predictor) -> Predictor:
        """Return the model for this request: the challenger for its share of requests."""
        if self.holder.ready and self._random.random() < self._settings.canary_share:
            return self.holder.predictor
        return champion

    def shadow(self, champion: Predictor, content: bytes, text: str, seconds: float) -> None:
        """Let the challenger answer too, later, if this request is in its share."""
        if not self.holder.ready or self._random.random() >= self._settings.shadow_share:
            return
        if len(self._tasks) >= MAX_SHADOWS:
            self._left_out += 1
            return
        task = asyncio.ensure_future(self._compare(champion, content, text, seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def report(self) -> dict[str, Any]:
        """Return agreement and latency so far."""
        compared, refused = self._agreed + self._differed, self.holder.refused
        return {
            "champion": self._pair[0],
            "challenger": self._pair[1],
            "refused": dataclasses.asdict(refused) if refused else None,
            "compared": compared,
            "agreement": round(self._agreed / compared, 4) if compared else None,
            "unusable": self._unusable,
            "left_out": self._left_out,
            "milliseconds": {
                "champion": _percentiles(self._champion),
                "challenger": _percentiles(self._own),
            },
            "disagreements": [
                {"champion": pair[0], "challenger": pair[1], "images": count}
                for pair, count in self._pairs.most_common(20)
            ],
        }

    def _reset(self) -> None:
        self._agreed = self._differed = self._unusable = self._left_out = 0
        self._champion: deque[float] = deque(maxlen=_MAX_TIMES)
        self._own: deque[float] = deque(maxlen=_MAX_TIMES)
        self._pairs: Counter[tuple[str, str]] = Counter()

    async def _compare(
        self, champion: Predictor, content: bytes, text: str, seconds: float
    ) -> None:
        challenger = self.holder.predictor
        pair = (champion.info["version"], challenger.info["version"])
        if pair != self._pair:
            self._reset()
            self._pair = pair
        started = time.perf_counter()
        try:
            found = await self._infer(challenger, content)
        except Exception as error:  # noqa: BLE001 - the champion's answer is out already
            _log.warning("the challenger failed: %s", error)
            self._unusable += 1
            return
        if isinstance(found, ImageError):
            self._unusable += 1
            return
        other = challenger.answer(found.decision, found.features).text
        self._champion.append(1000 * seconds)
        self._own.append(1000 * (time.perf_counter() - started))
        if other == text:
            self._agreed += 1
        else:
            self._differed += 1
            self._pairs[text, other] += 1


def _percentiles(times: deque[float]) -> dict[str, float] | None:
    if not times:
        return None
    return {f"p{q}": round(float(np.percentile(times, q)), 2) for q in (50, 95, 99)}
