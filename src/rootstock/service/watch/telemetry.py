"""The counters of the service, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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
"""Statuses of the routes that use a model; alerts compare them."""


@dataclass(frozen=True)
class ModelState:
    """Values that /metrics shows for one model in addition to its counters."""

    name: str
    predictor: Predictor | None
    ready: bool
    queue: int
    registry_up: bool
    drift: dict[str, float] = field(default_factory=dict)
    live: LiveScore | None = None
    estimate: Estimate | None = None


class Telemetry:
    """The counters of one app; two apps in a process share none.

    With several ``models``, the series of each have a label `model`; with one model they have
    none.
    """

    def __init__(self, models: Sequence[str] = ("",)) -> None:
        self._models = list(models)
        own = ["model"] if len(models) > 1 else []
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
            [*own, "method", "route", "status"],
        )
        self._problems = counter(
            "rootstock_problems_total",
            "Requests that ended in a problem, by the last word of its type.",
            ["type"],
        )
        self._seconds = histogram(
            "rootstock_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer.",
            [*own, "method", "route"],
            buckets=_SECONDS,
        )
        self._images = counter(
            "rootstock_images_total",
            "Images by outcome: ok, or the reason why one could not be used.",
            [*own, "outcome"],
        )
        self._unknown = counter(
            "rootstock_unknown_images_total", "Images unlike the training images.", own
        )
        self._stages = histogram(
            "rootstock_stage_duration_seconds",
            "Time of an image in the queues, of decoding it, and of its batch in the engine.",
            [*own, "stage"],
            buckets=_STAGE_SECONDS,
        )
        self._batches = histogram(
            "rootstock_batch_size", "Images in a batch.", own, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self._swaps = counter(
            "rootstock_model_swaps_total",
            "Models by role and outcome: swapped in, or refused.",
            [*own, "role", "outcome"],
        )
        self.lost_decoders = counter(
            "rootstock_decoder_restarts_total", "Decoding processes that were killed or ended."
        )
        self.dropped_rows = counter(
            "rootstock_journal_rows_dropped_total",
            "Answers missing from the journal: its disk is too slow or not writable.",
        )
        self._queue = gauge("rootstock_queue_images", "Images in progress.", own)
        self._registry_up = gauge(
            "rootstock_registry_up", "1 if the last check of the registry succeeded.", own
        )
        self._model = gauge(
            "rootstock_model_info",
            "1 for the model in use; no sample without a model.",
            ["name", "version", "strategy", "engine", "precision", "digest"],
        )
        self._memory = gauge(
            "rootstock_model_memory_bytes",
            "Growth of the process's resident memory when the model in use was opened.",
            own,
        )
        self._ready = gauge("rootstock_ready", "1 if a model is loaded.", own)
        self._drift = gauge(
            "rootstock_drift_psi",
            "Population stability index of recent images against the validation set.",
            [*own, "what"],
        )

        self._live = gauge(
            "rootstock_live_score",
            "Metric of the model in use by recent feedback, and its 95 % interval.",
            [*own, "metric", "bound"],
        )
        self._live_images = gauge(
            "rootstock_live_score_images",
            "Images with feedback behind the live score.",
            [*own, "metric"],
        )
        self._estimated = gauge(
            "rootstock_estimated_accuracy",
            "Accuracy estimated from the confidence of recent answers, with its 95 % interval; "
            "no sample if drift is high or images are few.",
            [*own, "bound"],
        )
        self._tested = gauge(
            "rootstock_test_score",
            "The metric of the live score, on the test images.",
            [*own, "metric"],
        )

    def begin_at_zero(
        self, routes: Iterable[str], problems: Iterable[str], roles: Iterable[str]
    ) -> None:
        """Export the series that alerts use before they count: Prometheus ignores a first step.

        ``routes`` are those that use a model; ``roles`` are those of models.
        """
        for route in routes:
            # A route without a model name belongs to the first model.
            for model in self._models if "{name}" in route else self._models[:1]:
                for status in WATCHED_STATUSES:
                    self._of(self._requests, model, "POST", route, status)
                self._of(self._seconds, model, "POST", route)
        for kind in problems:
            self._child(self._problems, kind)
        for model in self._models:
            for role in roles:
                for outcome in ("swapped", "refused"):
                    self._of(self._swaps, model, role, outcome)
            self._of(self._images, model, "ok")

    def count_request(
        self, method: str, route: str, status: int, seconds: float, model: str = ""
    ) -> None:
        """Count an answered request; ``model`` is empty if the request names none."""
        self._of(self._requests, model, method, route, status).inc()
        self._of(self._seconds, model, method, route).observe(seconds)

    def count_problem(self, kind: str) -> None:
        """Count a request that ended in a problem."""
        self._child(self._problems, kind).inc()

    def count_images(self, model: str, outcome: str, images: int = 1) -> None:
        """Count images by outcome."""
        self._of(self._images, model, outcome).inc(images)

    def count_unknown(self, model: str) -> None:
        """Count an image unlike the training images."""
        self._of(self._unknown, model).inc()

    def count_batch(self, model: str, images: int) -> None:
        """Count a batch of this many images."""
        self._of(self._batches, model).observe(images)

    def count_swap(self, model: str, role: str, outcome: str) -> None:
        """Count a model that was swapped in or rejected."""
        self._of(self._swaps, model, role, outcome).inc()

    def time_stage(self, model: str, stage: str, seconds: float) -> None:
        """Record the time of an image or a batch in a stage."""
        self._of(self._stages, model, stage).observe(seconds)

    def read(self, model: str, name: str, labels: dict[str, str]) -> float:
        """Return the present value of a series; 0 if there is none."""
        own = {"model": model} if len(self._models) > 1 else {}
        return self.registry.get_sample_value(name, own | labels) or 0.0

    def exposition(self, states: Iterable[ModelState]) -> Response:
        """Return the text for Prometheus, with the current state of each model."""
        for gauge in (self._model, self._drift, self._live, self._live_images, self._tested):
            gauge.clear()
        self._estimated.clear()
        for state in states:
            self._show(state)
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    def _show(self, state: ModelState) -> None:
        model, predictor = state.name, state.predictor
        if predictor is not None:
            info = predictor.info
            self._model.labels(
                *(info["name"], info["version"], info["strategy"]),
                *(*predictor.way, predictor.bundle.digest[:12]),
            ).set(1)
            self._set(self._memory, predictor.resident_bytes, model)
        self._set(self._ready, state.ready, model)
        self._set(self._queue, state.queue, model)
        self._set(self._registry_up, state.registry_up, model)
        for what, value in state.drift.items():
            self._set(self._drift, value, model, what)
        if state.estimate is not None and state.estimate.value is not None:
            for bound in ("value", "low", "high"):
                self._set(self._estimated, getattr(state.estimate, bound), model, bound)
        if state.live is None or predictor is None:
            return
        metric = state.live.metric
        for bound in ("value", "low", "high"):
            self._set(self._live, getattr(state.live, bound), model, metric, bound)
        self._set(self._live_images, state.live.images, model, metric)
        tested = predictor.bundle.metrics.get(metric)
        if tested is not None:
            self._set(self._tested, float(tested), model, metric)

    def _set(self, gauge: Gauge, value: float, model: str, *labels: object) -> None:
        # Not from the cache: a gauge that was cleared has new children.
        values = (model, *labels) if len(self._models) > 1 else labels
        (gauge.labels(*values) if values else gauge).set(value)

    def _of(self, metric: Any, model: str, *labels: object) -> Any:
        """Return the series of a model with these labels."""
        values = (model, *labels) if len(self._models) > 1 else labels
        return self._child(metric, *values) if values else metric


def _child(metric: Any, *labels: object) -> Any:
    return metric.labels(*labels)
