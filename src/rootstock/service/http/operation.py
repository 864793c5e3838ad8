"""The open routes: health checks of three protocols, metrics, and pages."""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from rootstock.service.http.access import Router
from rootstock.service.http.problems import Problem, document
from rootstock.service.http.schemas import Status
from rootstock.service.inference.services import Services

# The pages load nothing from other hosts; this makes browsers enforce that.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_IS_ALIVE, _IS_READY = "Is the process alive?", "Should requests be sent here?"


def make_operation_router(services: Services) -> Router:
    """Make the open routes outside /v2."""
    router = Router("open")

    @router.head("/healthz", include_in_schema=False)
    @router.get(
        "/healthz",
        summary=_IS_ALIVE,
        tags=["operation"],
        response_model_exclude_none=True,
        responses=document("lost"),
    )
    async def healthz() -> Status:
        """200 with or without a model; 503 if the engine hangs and only a restart helps."""
        _require_alive(services)
        return Status(status="ok")

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/readyz",
        summary=_IS_READY,
        tags=["operation"],
        response_model_exclude_none=True,
        responses=document("no-model", "lost"),
    )
    async def readyz() -> Status:
        """200 once a model has passed its golden images, until the service shuts down.

        With several models, 200 once one is ready and each was tried. `models` has each one's
        state.
        """
        _require_ready(services)
        states = services.states() if services.several else None
        return Status(status="ready", models=states)

    @router.get(
        "/ping",
        summary="MLflow's health check",
        tags=["mlflow"],
        response_model_exclude_none=True,
        responses=document("no-model", "lost"),
    )
    async def ping() -> Status:
        """As /readyz."""
        _require_ready(services)
        return Status(status="ready")

    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        tags=["operation"],
        response_class=PlainTextResponse,
    )
    async def metrics() -> Response:
        """Requests, durations by stage, images by outcome, queue, model, swaps and drift."""
        states = [service.state() for service in services]
        return services.resources.telemetry.exposition(states)

    @router.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return _read_page("page.html")

    @router.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return _read_page("docs.html")

    return router


def make_v2_health_router(services: Services) -> Router:
    """Make the health checks of the Open Inference Protocol."""
    router = Router("open", prefix="/v2/health", tags=["open inference protocol"])

    @router.get("/live", summary=_IS_ALIVE, responses=document("lost"))
    async def server_live() -> dict[str, bool]:
        """As /healthz."""
        _require_alive(services)
        return {"live": True}

    @router.get("/ready", summary=_IS_READY, responses=document("no-model", "lost"))
    async def server_ready() -> dict[str, bool]:
        """As /readyz."""
        _require_ready(services)
        return {"ready": True}

    return router


def _require_ready(services: Services) -> None:
    """Check that requests should be sent here.

    Raises:
        NotLoadedError: No model is loaded yet.
        Problem: No decoder is running, the engine hangs, or the service is shutting down.
    """
    for service in services.awaited:
        _ = service.holder.predictor
    _require_alive(services)
    if not services.ready:
        draining = services.resources.draining
        reason = "The service is shutting down." if draining else "No decoder is running."
        raise Problem("lost", reason, headers={"Retry-After": "1"})


def _require_alive(services: Services) -> None:
    """Check that the process needs no restart.

    Raises:
        Problem: The engine hangs.
    """
    if services.resources.batcher.stuck:
        raise Problem("lost", "The engine hangs.", headers={"Retry-After": "10"})


def _read_page(name: str) -> HTMLResponse:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return HTMLResponse(text, headers=_PAGE_HEADERS)
