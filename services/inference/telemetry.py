"""What the service counts, as Prometheus reads it from /metrics."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootstock.predict import Predictor

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Telemetry:
    """The counters of one app; two apps in a process do not share any."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["method", "route"]
        self.requests = Counter(
            "rootstock_http_requests_total",
            "Requests by method, route and status.",
            [*labels, "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "rootstock_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.images = Counter(
            "rootstock_images_total",
            "Images by outcome: ok, or the reason why one could not be used.",
            ["outcome"],
            registry=self.registry,
        )
        self.waiting = Gauge(
            "rootstock_waiting_requests", "Requests waiting for a thread.", registry=self.registry
        )
        self.model = Gauge(
            "rootstock_model_info",
            "1 for the model in use; no sample while there is none.",
            ["name", "version", "strategy"],
            registry=self.registry,
        )
        self.ready = Gauge(
            "rootstock_ready", "1 if there is a model to answer with.", registry=self.registry
        )

    def exposition(self, predictor: Predictor | None, *, waiting: int) -> Response:
        """The text for Prometheus, with the state of this moment."""
        self.model.clear()
        if predictor is not None:
            info = predictor.info
            self.model.labels(info["name"], info["version"], info["strategy"]).set(1)
        self.ready.set(predictor is not None)
        self.waiting.set(waiting)
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


class TelemetryMiddleware:
    """ASGI middleware: counts and times every request under the route it matched."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            # The route, never the raw path: strangers would otherwise fill the memory.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if route != "other" else "other"
            self.telemetry.requests.labels(method, route, status).inc()
            self.telemetry.seconds.labels(method, route).observe(time.perf_counter() - start)
