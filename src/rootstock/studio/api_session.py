"""Routes of the session: the user, the project, and what has to be run first."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Request
from fastapi.responses import JSONResponse

from rootstock.errors import RootstockError
from rootstock.service.http.access import Router
from rootstock.service.http.problems import Problem
from rootstock.studio.sessions import COOKIE, SECONDS, Session, Sessions
from rootstock.studio.studio import Studio
from rootstock.tasks import get_task


def make_session_router(studio: Studio, sessions: Sessions) -> Router:
    """Create the routes that work without a login."""
    router = Router("open", prefix="/api/session")

    @router.get("")
    def session(request: Request) -> dict[str, Any]:
        """Return the user, the token that changes need, and facts about the project."""
        return describe(request.state.session)

    @router.post("")
    def log_in(
        request: Request, key: Annotated[str, Body(embed=True, max_length=200)]
    ) -> JSONResponse:
        """Start a session with a key."""
        begun = sessions.begin(key)
        if begun is None:
            raise Problem("unauthorized", "Unknown key.")
        answer = JSONResponse(describe(begun))
        answer.set_cookie(
            COOKIE,
            begun.id,
            max_age=SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    @router.delete("")
    def log_out(request: Request) -> JSONResponse:
        """End the session."""
        sessions.end(request.state.session)
        answer = JSONResponse({})
        answer.delete_cookie(COOKIE)
        return answer

    def describe(who: Session | None) -> dict[str, Any]:
        known = {
            "needs_key": sessions.needs_key,
            "name": who.name if who else "",
            "role": who.role if who else None,
            "token": sessions.token(who),
        }
        return known if who is None else known | {"project": describe_project(studio)}

    return router


def describe_project(studio: Studio) -> dict[str, Any]:
    """Return the facts about the project that every page shows."""
    facts: dict[str, Any] = {
        "name": studio.project.root.name,
        "notes": studio.list_notes(),
        "task": None,
    }
    try:
        table = studio.table
    except RootstockError:
        return facts
    task = get_task(table.task)
    return facts | {
        "task": table.task,
        "editor": task.editor,
        "names": list(table.terms),
        "total": len(table.rows),
        "headline": task.headline,
        "splits": list(table.split.names),
        "numbers": list_numbers(studio),
    }


def list_numbers(studio: Studio) -> list[str]:
    """Return the names of the numbers in a label; none for labels of names."""
    labels = studio.desk.read()
    row = next(iter(studio.project.manifest.get().rows()), None)
    parts = labels.annotate(row.target) if row else None
    return list(parts["numbers"]) if parts else []
