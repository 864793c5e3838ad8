"""Select the model for a request."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request

from rootstock.service.inference.service import Service
from rootstock.service.inference.services import Services

Name = Annotated[str, Path(description="The name of a model.", examples=["rootstock"])]
NAMED_PREFIX = "/models/{name}"
"""Prefix of routes that name a model; routes without it use the default model."""


def find_service(services: Services, request: Request, name: str = "") -> Service:
    """Return the model with this name, or the first one.

    Raises:
        Problem: There is no such model.
        NotLoadedError: There is only one model, and it is not loaded.
    """
    service = services.find(name) if name else services.default
    request.state.model = service.name  # counted by the observer
    return service


def depend_on_service(services: Services, *, named: bool) -> Any:
    """Return the default of a route's parameter ``service``."""

    async def find_default(request: Request) -> Service:
        return find_service(services, request)

    async def find_named(request: Request, name: Name) -> Service:
        return find_service(services, request, name)

    return Depends(find_named if named else find_default)
