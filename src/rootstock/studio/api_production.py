"""Routes of the page Production: the service's counters, its journal and its images."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from fastapi import Body, Request
from fastapi.responses import Response

from rootstock.data.adoption import adopt_image
from rootstock.data.limits import DecodeLimits
from rootstock.errors import ArtifactError, ImageError
from rootstock.service.http.access import Router
from rootstock.service.http.problems import Problem
from rootstock.studio.labels import MAX_TEXT_CHARACTERS
from rootstock.studio.production import ServiceDownError
from rootstock.studio.studio import Studio
from rootstock.studio.thumbnails import MEDIA_TYPE
from rootstock.tasks import get_task

_Text = Annotated[str, Body(max_length=MAX_TEXT_CHARACTERS)]


def make_production_router(studio: Studio) -> Router:
    """Make the routes of the page Production."""
    router = Router("predict", prefix="/api/production")

    @router.get("")
    def production() -> dict[str, Any]:
        """Return what the service counts, and what its journal says of the newest answers."""
        found, problem = None, None
        try:
            found = studio.production.ask_service()
        except ServiceDownError as error:
            problem = {"text": error.message, "todo": error.hint}
        return {
            "known": studio.production.is_known,
            "service": found,
            "problem": problem,
            "journal": studio.production.describe_journal(),
            "classes": _list_classes(studio),
        }

    @router.get("/images/{digest}", response_class=Response)
    def image(digest: str) -> Response:
        """Return a small picture of an image that the service has kept."""
        path = studio.production.find_image(digest)
        if path is None:
            raise Problem("not-found", "The service has not kept this image.")
        try:
            content = studio.thumbnails.draw_stranger(path.read_bytes(), DecodeLimits())
        except (ImageError, OSError):
            raise Problem("unusable-image", "This image cannot be shown.") from None
        return Response(content, media_type=MEDIA_TYPE)

    @router.post("/images/{digest}/adopt")
    def adopt(
        request: Request, digest: str, label: _Text, who: _Text = "", why: _Text = ""
    ) -> dict[str, Any]:
        """Add an image that the service has kept to the data set, with its true class."""
        path = studio.production.find_image(digest)
        if path is None:
            raise Problem("not-found", "The service has not kept this image.")
        person = request.state.session.name or who.strip()
        if not person:
            raise Problem("invalid-request", "Say who you are: new images are kept with a name.")
        project = studio.project
        try:
            added = adopt_image(
                project.data,
                project.manifest.get().images,
                path.read_bytes(),
                label,
                who=person,
                why=why or "from the journal of the service",
            )
        except ImageError as error:
            raise Problem("unusable-image", error.message) from None
        return {"path": str(added.relative_to(project.data))}

    return router


def _list_classes(studio: Studio) -> list[str]:
    """Return the classes that an image can be added to; none for a table."""
    if not studio.project.data.is_dir():
        return []
    with contextlib.suppress(ArtifactError):
        manifest = studio.project.manifest.get()
        if get_task(manifest.task).in_folders:
            return sorted({row.target for row in manifest.rows()})
    return []
