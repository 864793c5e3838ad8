"""create_app: wires settings, the model holder and the routes; nothing happens at import."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
from anyio.to_thread import run_sync
from fastapi import FastAPI

from rootstock.config import Config
from rootstock.data.decode import DecodeLimits
from rootstock.errors import NoModelError, RootstockError
from rootstock.params import load_config
from rootstock.paths import Paths
from rootstock.ports import ModelRegistry
from services.inference import problems
from services.inference.model_holder import ModelHolder
from services.inference.routes import make_router
from services.inference.service import Service
from services.inference.settings import Settings
from services.inference.telemetry import TelemetryMiddleware
from services.inference.uploads import BodyLimit
from services.inference.v2 import make_v2_router

_DESCRIPTION = (
    "Classifies images with the model that Rootstock trained. Errors are problem details "
    "(RFC 9457) with a stable `type`."
)

_log = logging.getLogger("rootstock.service")


def create_app(settings: Settings, *, holder: ModelHolder | None = None) -> FastAPI:
    """The service as an ASGI app; without ``holder`` one is made from the settings.

    The app starts at once and loads the model in the background, again and again until there
    is one; until then /readyz and /v1/predict answer 503.
    """
    service = Service(settings, holder or make_holder(settings))
    app = FastAPI(
        title="Rootstock",
        version="1",
        description=_DESCRIPTION,
        lifespan=partial(_lifespan, service),
        docs_url=None,  # FastAPI's own page is blank without a CDN
        redoc_url=None,
    )
    app.include_router(make_router(service))
    app.include_router(make_v2_router(service))
    problems.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(TelemetryMiddleware, telemetry=service.telemetry)
    return app


def make_holder(settings: Settings) -> ModelHolder:
    """The model holder that ``settings`` describe; nothing is loaded yet."""
    return ModelHolder(
        settings.model or f"models:/{_config(settings.root).registry.name}@champion",
        cache=settings.root / ".rootstock/models",
        connect=partial(_connect, settings.root),
        limits=DecodeLimits(max_bytes=settings.max_body_bytes, max_pixels=settings.max_pixels),
        retry_seconds=settings.retry_seconds,
    )


def _config(root: Path) -> Config:
    params = root / "params.yaml"
    return load_config(params if params.is_file() else None)


def _connect(root: Path) -> ModelRegistry:
    # MLflow takes seconds to import, and a service with a directory does without.
    from rootstock.integrations.connect import connect_registry

    registry = connect_registry(_config(root), Paths(root))
    if registry is None:
        raise NoModelError(
            "tracking.enabled is false in params.yaml, so there is no registry",
            hint="serve a directory: rootstock serve --model artifacts/model",
        )
    return registry


@contextlib.asynccontextmanager
async def _lifespan(service: Service, _app: FastAPI) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_load_until_ready, service)
        yield
        tasks.cancel_scope.cancel()


async def _load_until_ready(service: Service) -> None:
    told = ""
    while not service.holder.ready:
        try:
            await run_sync(service.holder.load, abandon_on_cancel=True)
        except RootstockError as error:
            if str(error) != told:
                _log.warning("no model yet, trying again: %s", error)
            told = str(error)
        except Exception:  # noqa: BLE001 - an edge: the service must live to try again
            _log.exception("loading the model failed, trying again")
        if not service.holder.ready:
            await anyio.sleep(service.settings.retry_seconds)
