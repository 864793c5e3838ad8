"""The counters of the service, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from rootstock.evaluate.feedback import LiveScore
from rootstock.evaluate.without_labels import Estimate
from rootstock.model.predictor import Predictor

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

WATCHED_STATUSES = (200, 500, 503)
"""Statuses of the routes that answer with a model, which alerts compare."""


class Telemetry:
    """The counters of one app; two apps in a process share none."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=registry)
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        # Looking up a child by its labels takes longer than counting.
        self._child = lru_cache(maxsize=1_000)(_child)
        self._requests = counter(
            "rootstock_http_requests_total",
            "Requests by method, route and status.",
            ["method", "route", "status"],
        )
        self._problems = counter(
            "rootstock_problems_total",
            "Requests that ended in a problem, by the last word of its type.",
            ["type"],
        )
        self._seconds = histogram(
            "rootstock_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["method", "route"],
            buckets=_SECONDS,
        )
        self._images = counter(
            "rootstock_images_total",
            "Images by outcome: ok, or the reason why one could not be used.",
            ["outcome"],
        )
        self.unknown = counter(
            "rootstock_unknown_images_total", "Images unlike the training images."
        )
        self._stages = histogram(
            "rootstock_stage_duration_seconds",
            "Time of an image in the queues, of decoding it, and of its batch in the engine.",
            ["stage"],
            buckets=_STAGE_SECONDS,
        )
        self.batches = histogram(
            "rootstock_batch_size", "Images in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self.swaps = counter(
            "rootstock_model_swaps_total",
            "Models by role and outcome: swapped in, or refused.",
            ["role", "outcome"],
        )
        self.lost_decoders = counter(
            "rootstock_decoder_restarts_total", "Decoding processes that were killed or ended."
        )
        self.dropped_rows = counter(
            "rootstock_journal_rows_dropped_total",
            "Answers that are not in the journal: its disk is too slow, or cannot be written.",
        )
        self._queue = gauge("rootstock_queue_images", "Images accepted and not answered yet.")
        self._registry_up = gauge(
            "rootstock_registry_up", "1 if the last look at the registry worked."
        )
        self._model = gauge(
            "rootstock_model_info",
            "1 for the model in use; no sample without a model.",
            ["name", "version", "strategy", "engine", "digest"],
        )
        self._ready = gauge("rootstock_ready", "1 if there is a model to answer with.")
        self._drift = gauge(
            "rootstock_drift_psi",
            "Population stability index of recent images against the validation set.",
            ["what"],
        )

        self._live = gauge(
            "rootstock_live_score",
            "Metric of the model in use by recent feedback, and its 95 % interval.",
            ["metric", "bound"],
        )
        self._live_images = gauge(
            "rootstock_live_score_images", "Images with feedback behind it.", ["metric"]
        )
        self._estimated = gauge(
            "rootstock_estimated_accuracy",
            "Accuracy that the confidence of recent answers lets expect, and its 95 % interval; "
            "no sample if drift or few images forbid to tell.",
            ["bound"],
        )
        self._tested = gauge(
            "rootstock_test_score", "The same metric on the test images.", ["metric"]
        )

    def begin_at_zero(
        self, routes: Iterable[str], problems: Iterable[str], roles: Iterable[str]
    ) -> None:
        """Show the series that alerts watch before they count: Prometheus sees no first step.

        ``routes`` are those that answer with a model, ``roles`` those of models.
        """
        for route in routes:
            for status in WATCHED_STATUSES:
                self._child(self._requests, "POST", route, status)
            self._child(self._seconds, "POST", route)
        for kind in problems:
            self._child(self._problems, kind)
        for role in roles:
            for outcome in ("swapped", "refused"):
                self.swaps.labels(role, outcome)
        self._child(self._images, "ok")

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._child(self._requests, method, route, status).inc()
        self._child(self._seconds, method, route).observe(seconds)

    def count_problem(self, kind: str) -> None:
        """Count a request that ended in a problem."""
        self._child(self._problems, kind).inc()

    def count_images(self, outcome: str, images: int = 1) -> None:
        """Count images by outcome."""
        self._child(self._images, outcome).inc(images)

    def time_stage(self, stage: str, seconds: float) -> None:
        """Record the time of an image or a batch in a stage."""
        self._child(self._stages, stage).observe(seconds)

    def read(self, name: str, labels: dict[str, str]) -> float:
        """Return the present value of a series; 0 if there is none."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def exposition(
        self,
        predictor: Predictor | None,
        *,
        ready: bool,
        queue: int,
        registry_up: bool,
        drift: dict[str, float],
        live: LiveScore | None = None,
        estimate: Estimate | None = None,
    ) -> Response:
        """Return the text for Prometheus, with the present state."""
        self._model.clear()
        if predictor is not None:
            info = predictor.info
            self._model.labels(
                *(info["name"], info["version"], info["strategy"]),
                *(predictor.engine, predictor.bundle.digest[:12]),
            ).set(1)
        self._ready.set(ready)
        self._queue.set(queue)
        self._registry_up.set(registry_up)
        self._drift.clear()
        for what, value in drift.items():
            self._drift.labels(what).set(value)
        self._show_scores(predictor, live)
        self._estimated.clear()
        if estimate is not None and estimate.value is not None:
            for bound in ("value", "low", "high"):
                self._estimated.labels(bound).set(getattr(estimate, bound))
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    def _show_scores(self, predictor: Predictor | None, live: LiveScore | None) -> None:
        for gauge in (self._live, self._live_images, self._tested):
            gauge.clear()
        if live is None or predictor is None:
            return
        for bound in ("value", "low", "high"):
            self._live.labels(live.metric, bound).set(getattr(live, bound))
        self._live_images.labels(live.metric).set(live.images)
        tested = predictor.bundle.metrics.get(live.metric)
        if tested is not None:
            self._tested.labels(live.metric).set(float(tested))


def _child(metric: Any, *labels: object) -> Any:
    return metric.labels(*labels)
