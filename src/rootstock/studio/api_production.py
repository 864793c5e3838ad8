"""Routes of the Production page: the service's counters, journal, and images."""

from __future__ import annotations

from typing import Any

from fastapi.responses import Response

from rootstock.data.limits import DecodeLimits
from rootstock.errors import ImageError
from rootstock.service.http.access import Router
from rootstock.service.http.problems import Problem
from rootstock.studio.production import ServiceDownError
from rootstock.studio.studio import Studio
from rootstock.studio.thumbnails import MEDIA_TYPE


def make_production_router(studio: Studio) -> Router:
    """Create the routes of the Production page."""
    router = Router("predict", prefix="/api/production")

    @router.get("")
    def production() -> dict[str, Any]:
        """Return the service's counters, and a summary of the newest answers in its journal."""
        return ask_service() | {
            "known": studio.production.is_known,
            "journal": studio.production.describe_journal(),
        }

    @router.get("/model")
    def model() -> dict[str, Any]:
        """Return the name of the project's model, and the models that the service answers with."""
        found = ask_service()
        return {
            "name": studio.models.name,
            "address": studio.production.address,
            "problem": found["problem"],
            "models": found["service"] and found["service"]["models"],
        }

    def ask_service() -> dict[str, Any]:
        try:
            return {"service": studio.production.ask_service(), "problem": None}
        except ServiceDownError as error:
            return {"service": None, "problem": {"text": error.message, "todo": error.hint}}

    @router.get("/images/{digest}", response_class=Response)
    def image(digest: str) -> Response:
        """Return a small picture of an image that the service has kept."""
        found = studio.production.find_image(digest)
        if found is None:
            raise Problem("not-found", "The service has not kept this image.")
        row, folder = found
        try:
            content = (folder / row.path).read_bytes()
            content = studio.thumbnails.draw_stranger(content, DecodeLimits())
        except (ImageError, OSError):
            raise Problem("unusable-image", "This image cannot be shown.") from None
        return Response(content, media_type=MEDIA_TYPE)

    return router
