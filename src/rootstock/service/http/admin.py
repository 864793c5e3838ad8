"""Routes for operators with an admin key: reload, roll back, pin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Body

from rootstock.errors import RootstockError
from rootstock.service.daemon import run_in_daemon
from rootstock.service.http.access import Router
from rootstock.service.http.chosen import NAMED_PREFIX, depend_on_service
from rootstock.service.http.problems import Problem, document
from rootstock.service.http.schemas import AdminAnswer
from rootstock.service.http.uploads import bounded_route
from rootstock.service.inference.service import Service
from rootstock.service.inference.services import Services
from rootstock.service.models.holder import ADMIN_SECONDS, ModelHolder

Version = Annotated[str, Body(embed=True, pattern=r"^[0-9]{1,18}$", examples=["3"])]

_MAX_ELEMENTS = 100
_MAX_NESTED = 9


def make_admin_router(services: Services, *, named: bool = False) -> Router:
    """Create the routes below /admin, of the default model or (``named``) of each model."""
    router = Router(
        "admin",
        suffix="_named" if named else "",
        prefix=f"/admin{NAMED_PREFIX}" if named else "/admin",
        tags=["administration"],
        route_class=bounded_route(_MAX_ELEMENTS, nested=_MAX_NESTED),
    )
    chosen = depend_on_service(services, named=named)
    problems = document("conflict")

    @router.post("/reload", summary="Look for a new model now", responses=problems)
    async def reload(service: Service = chosen) -> AdminAnswer:
        """Look in the registry now; a version that was refused is tried again."""
        holder = service.holder
        return await _change(holder, lambda: holder.refresh(again=True, wait_seconds=ADMIN_SECONDS))

    @router.post("/rollback", summary="Serve the version before this one", responses=problems)
    async def rollback(service: Service = chosen) -> AdminAnswer:
        """Pin the version that was served before, only on this service; see /admin/unpin.

        Repeating the request has no effect. It also works while the registry is down. Undo it with
        /admin/unpin.

        To move the champion for every service, use `rootstock rollback`.
        """
        return await _change(service.holder, service.holder.rollback)

    @router.post(
        "/pin",
        summary="Pin one version, whatever the alias says",
        responses=problems,
    )
    async def pin(version: Version, service: Service = chosen) -> AdminAnswer:
        """The pin holds until /admin/unpin, also after a restart of the service."""
        return await _change(service.holder, lambda: service.holder.pin(version))

    @router.post("/unpin", summary="Follow the alias again", responses=problems)
    async def unpin(service: Service = chosen) -> AdminAnswer:
        """Return to the alias's version."""
        return await _change(service.holder, service.holder.unpin)

    return router


async def _change(holder: ModelHolder, work: Callable[[], Any]) -> AdminAnswer:
    before = holder.predictor.info["version"] if holder.ready else ""
    try:
        await run_in_daemon(work)
    except RootstockError as error:
        raise Problem("conflict", f"Nothing was changed: {error.message}") from None
    now = holder.predictor.info["version"]
    return AdminAnswer(version=now, before=before, changed=now != before, pinned=holder.pinned)
