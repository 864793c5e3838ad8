"""Assemble the studio: settings, project, and routes. Importing has no side effects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from rootstock.errors import ArtifactError, ConflictError, DataError, RootstockError
from rootstock.service.http import problems
from rootstock.service.http.access import AccessTable, Router
from rootstock.service.http.body_limit import BodyLimit
from rootstock.service.http.keys import KeyRing
from rootstock.service.http.linger import Linger
from rootstock.service.http.problems import Problem
from rootstock.studio.api_data import make_data_router
from rootstock.studio.api_label import make_label_router, make_pool_router
from rootstock.studio.api_models import make_decision_router, make_models_router, make_run_router
from rootstock.studio.api_production import make_production_router
from rootstock.studio.api_session import make_session_router
from rootstock.studio.guard import StudioGuard
from rootstock.studio.sessions import Sessions
from rootstock.studio.settings import StudioSettings
from rootstock.studio.studio import Studio

STATIC = Path(__file__).parent / "static"
MAX_BODY_BYTES, BODY_SECONDS = 1_000_000, 30.0


def create_studio(settings: StudioSettings) -> FastAPI:
    """Create the studio as an ASGI app.

    Raises:
        ConfigError: The key file or the project is wrong.
    """
    studio = Studio(settings)
    studio.check()
    if settings.pool is not None:
        studio.pool.choose(settings.pool.absolute())
    sessions = Sessions(KeyRing.read(settings.keys))
    app = _GuardedApp(
        title="Rootstock studio",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.studio = studio
    access = AccessTable()
    for router in (
        make_page_router(),
        make_session_router(studio, sessions),
        make_data_router(studio),
        make_label_router(studio),
        make_pool_router(studio),
        make_models_router(studio),
        make_production_router(studio),
        make_decision_router(studio),
        make_run_router(studio),
    ):
        access.add(router)
        app.include_router(router)
    access.declare("/static/{path:path}", "open")
    app.mount("/static", StaticFiles(directory=STATIC))
    problems.install(app)
    _explain_errors(app)
    limited = BodyLimit(
        app.behind_guard,
        max_bytes=MAX_BODY_BYTES,
        max_buffered=20 * MAX_BODY_BYTES,
        seconds=BODY_SECONDS,
    )
    app.guard = StudioGuard(limited, access, sessions, settings.names)
    return app


class _GuardedApp(FastAPI):
    """FastAPI behind the guard, so that it does no work for rejected requests."""

    guard: StudioGuard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        enter: Any = Linger(self.guard) if scope["type"] == "http" else self.behind_guard
        await enter(scope, receive, send)

    async def behind_guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        await super().__call__(scope, receive, send)


def make_page_router() -> Router:
    """Create the route of the page: one document, whose scripts draw every view."""
    router = Router("open")

    @router.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    return router


def _explain_errors(app: FastAPI) -> None:
    """Answer errors of the project with what is wrong and what to do."""

    async def explain(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RootstockError)
        return Problem("conflict", error.message, members={"todo": error.hint}).response()

    for kind in (RootstockError, ArtifactError, DataError, ConflictError):
        app.add_exception_handler(kind, explain)
