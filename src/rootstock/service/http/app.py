"""Assemble the service: settings, model holder, and routes. Importing has no side effects."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.errors import ConfigError, NoModelError, RootstockError, TrackingError
from rootstock.ports.registry import RegistryReader
from rootstock.service.daemon import run_in_daemon
from rootstock.service.http import problems
from rootstock.service.http.access import AccessTable, Admission, Guard
from rootstock.service.http.admin import make_admin_router
from rootstock.service.http.body_limit import BodyLimit
from rootstock.service.http.feedback import make_feedback_router
from rootstock.service.http.keys import KeyRing, RateLimit
from rootstock.service.http.linger import Linger
from rootstock.service.http.mlflow import make_mlflow_router
from rootstock.service.http.models import make_models_router
from rootstock.service.http.observer import Observer
from rootstock.service.http.openapi import describe
from rootstock.service.http.operation import make_operation_router, make_v2_health_router
from rootstock.service.http.routes import make_router
from rootstock.service.http.v2 import make_v2_router
from rootstock.service.inference.resources import Resources
from rootstock.service.inference.service import Service
from rootstock.service.inference.services import Services
from rootstock.service.models.holder import ModelHolder
from rootstock.service.models.proof import ProofLimits
from rootstock.service.models.source import read_models
from rootstock.service.settings import Settings, split_origins

if TYPE_CHECKING:
    from rootstock.service.rpc.server import RpcServer

_DESCRIPTION = (
    "Classifies images with a model trained by Rootstock. Errors are problem details "
    "(RFC 9457) with a stable `type`."
)

_SECOND_LOOK_SECONDS = 1.0
_SHARED_HEADERS = ("X-Request-ID", "Inference-Header-Content-Length")
"""Headers that pages from other origins may send and read."""

_log = logging.getLogger("rootstock.service")


def create_app(settings: Settings, *, holder: ModelHolder | None = None) -> FastAPI:
    """Create the service as an ASGI app, with a holder from the settings if none is given.

    The app starts at once and loads the model in the background, retrying until one loads. Until
    then, /readyz and /v1/predict answer 503. Afterwards it follows the registry.
    Raises:
        ConfigError: The key file, the journal folder, or the model address is invalid.
    """
    services = make_services(settings, holder)
    service = services.default
    keys = KeyRing.read(settings.keys)
    app = _GatedApp(
        title="Rootstock",
        version="1",
        description=_DESCRIPTION,
        lifespan=partial(_lifespan, services),
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,  # FastAPI's built-in page needs a CDN
        redoc_url=None,
        redirect_slashes=False,  # a redirect would trust the request's Host header
    )
    app.state.service, app.state.services = service, services
    app.access.declare("/openapi.json", "open")  # FastAPI's own route
    for named in (False, True):
        app.include_router(make_router(services, named=named))
        app.include_router(make_admin_router(services, named=named))
    app.include_router(make_models_router(services))
    app.include_router(make_feedback_router(services))
    app.include_router(make_operation_router(services))
    app.include_router(make_v2_health_router(services))
    app.include_router(make_v2_router(services))
    app.include_router(make_mlflow_router(services))
    problems.install(app)
    services.resources.telemetry.begin_at_zero(
        routes=app.access.list_routes("predict", "POST"),
        problems=problems.KINDS,
        roles=["champion", "challenger"] if settings.challenger else ["champion"],
    )
    describe(app, app.access)
    limited = BodyLimit(
        app.behind_gate,
        max_bytes=settings.max_body_bytes,
        max_buffered=settings.max_buffered_bytes,
        seconds=settings.body_seconds,
    )
    admission = Admission(keys, RateLimit(settings.rate_per_second, settings.rate_burst))
    if settings.grpc_port is not None:
        app.state.rpc = make_rpc_server(settings, services, admission)
    guarded: ASGIApp = Guard(limited, app.access, admission, services.crowded)
    if origins := split_origins(settings.cors_origins):
        # Outside the guard: browsers send no key with a preflight request, and must see refusals.
        guarded = CORSMiddleware(
            guarded,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", *_SHARED_HEADERS],
            expose_headers=["Retry-After", *_SHARED_HEADERS],
        )
    app.gate = Observer(Linger(guarded), app.access, services.resources.telemetry)
    return app


class _GatedApp(FastAPI):
    """FastAPI wrapped in our own middlewares, so that it does no work for rejected requests.

    FastAPI would run them inside its tracing and error handling. That took a fifth of the time of
    a rejection, and under overload most requests are rejected.
    """

    gate: ASGIApp

    def __init__(self, **options: Any) -> None:
        self.access = AccessTable()
        super().__init__(**options)

    def include_router(self, router: APIRouter) -> None:  # type: ignore[override]
        """Include a router with a declared access."""
        self.access.add(router)
        super().include_router(router)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        enter = self.gate if scope["type"] == "http" else self.behind_gate
        await enter(scope, receive, send)

    async def behind_gate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        await super().__call__(scope, receive, send)


def make_services(settings: Settings, holder: ModelHolder | None = None) -> Services:
    """Create a service for each model in the settings; ``holder`` is the only model's, if given.

    Raises:
        ConfigError: The address of a model is wrong, or the journal's folder is.
    """
    if settings.models and settings.model:
        raise ConfigError(
            "both `model` and `models` are set", hint="set ROOTSTOCK_MODEL or ROOTSTOCK_MODELS"
        )
    if models := read_models(settings.models):
        holders = {name: make_holder(settings, address, name) for name, address in models.items()}
    else:
        holder = holder or make_holder(settings)
        holders = {settings.model_name or holder.source.name or str(holder.source): holder}
    first = next(iter(holders))
    challenger = make_holder(settings, settings.challenger) if settings.challenger else None
    # A registered model's challenger has the same name; any other belongs to the first model.
    rival = challenger.source.name if challenger else ""
    challenged = rival if rival in holders else first
    resources = Resources(settings, list(holders))
    services = [
        Service(
            name,
            settings,
            resources,
            one,
            challenger if name == challenged else None,
            settings.index if name == first else None,
        )
        for name, one in holders.items()
    ]
    return Services(resources, services)


def make_rpc_server(settings: Settings, services: Services, admission: Admission) -> RpcServer:
    """Make the server of gRPC.

    Raises:
        ConfigError: its packages are not installed.
    """
    # The handlers of gRPC at a fork can end the new process.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        from rootstock.service.rpc.server import RpcServer
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"gRPC needs {error.name}, which is not installed",
            hint="pip install 'rootstock-vision[grpc]', or unset ROOTSTOCK_GRPC_PORT",
        ) from None
    return RpcServer(settings, services, admission)


def make_holder(settings: Settings, model: str = "", name: str = "") -> ModelHolder:
    """Create the holder of ``model``, or of the settings' model. Nothing is loaded yet.

    ``name``: name of a model from a directory; the default is the setting's.
    """
    model = model or settings.model
    return ModelHolder(
        model or f"models:/{_config(settings.root).registry.name}@champion",
        cache=settings.root / ".rootstock/models",
        connect=partial(_connect, settings.root),
        limits=settings.limits,
        engine=settings.engine,
        precision=settings.precision,
        proof=ProofLimits(settings.proof_seconds, settings.proof_memory_bytes),
        name=name or settings.model_name,
        retry_seconds=settings.retry_seconds,
        registry_seconds=settings.registry_seconds,
    )


def _config(root: Path) -> Config:
    params = root / "params.yaml"
    return load_config(params if params.is_file() else None)


def check_registry(root: Path) -> None:
    """Reject a registry that cannot be read with the installed packages.

    Raises:
        ConfigError: MLflow is missing. A registry that is down or does not exist yet is accepted.
    """
    with contextlib.suppress(TrackingError):
        _connect(root)


def _connect(root: Path) -> RegistryReader:
    # Each check opens the database again: a pool would keep reading a file that a restore replaced.
    os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    # A service that serves a directory does not need it.
    from rootstock.integrations.connect import connect_reader

    registry = connect_reader(_config(root), Paths(root))
    if registry is None:
        raise NoModelError(
            "tracking.enabled is false in params.yaml, so there is no registry",
            hint="serve a directory: rootstock serve --model artifacts/model",
        )
    return registry


@contextlib.asynccontextmanager
async def _lifespan(services: Services, app: _GatedApp) -> AsyncIterator[None]:
    app.access.require_all(app.routes)
    async with services.resources.running(), anyio.create_task_group() as tasks:
        for service in services:
            tasks.start_soon(_follow, service.holder, service.settings, service)
            if service.challenger is not None:
                tasks.start_soon(_follow, service.challenger.holder, service.settings)
        rpc = getattr(app.state, "rpc", None)
        async with rpc.running() if rpc else contextlib.nullcontext():
            yield
        tasks.cancel_scope.cancel()


async def _follow(holder: ModelHolder, settings: Settings, service: Service | None = None) -> None:
    """Load a model, then check for a newer one forever; errors do not stop the loop.

    After the first attempt, ``service`` counts as tried.
    """
    last_error = ""
    # A model that was loaded before the app started is not checked again at once.
    pause = settings.poll_seconds if holder.ready else 0.0
    while True:
        # Replicas that start together must not all ask at the same time.
        await anyio.sleep(pause * random.uniform(0.8, 1.2))
        is_start = not holder.ready
        work = holder.load if is_start else holder.refresh
        try:
            await run_in_daemon(work)
            last_error = ""
        except RootstockError as error:
            if str(error) != last_error:
                waits = "no model yet, so answers are 503 (--model serves a model's folder)"
                state = "the model in use stays" if holder.ready else waits
                _log.warning("%s: %s: %s", holder.source, state, error)
            last_error = str(error)
        except Exception:  # noqa: BLE001 - the service must live to try again
            _log.exception("looking for a model failed, trying again")
        if service is not None:
            service.tried = True
        pause = settings.poll_seconds if holder.ready else settings.retry_seconds
        if is_start and holder.ready:
            pause = min(pause, _SECOND_LOOK_SECONDS)  # the registry may have been too slow
