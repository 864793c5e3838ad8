"""The route that lists the models of this service."""

from __future__ import annotations

import dataclasses

from rootstock.service.http.access import Router
from rootstock.service.http.schemas import ListedModel, ModelsAnswer, RefusedModel
from rootstock.service.inference.service import Service
from rootstock.service.inference.services import Services


def make_models_router(services: Services) -> Router:
    """Create the route /v1/models."""
    router = Router("predict", tags=["prediction"])

    @router.get(
        "/v1/models", summary="The models of this service", response_model_exclude_none=True
    )
    async def models() -> ModelsAnswer:
        """List their states and versions, and the memory that each uses."""
        states = services.states()
        return ModelsAnswer(
            models=[_list(one, states[one.name], one is services.default) for one in services]
        )

    return router


def _list(service: Service, state: str, is_default: bool) -> ListedModel:
    holder = service.holder
    refused = RefusedModel(**dataclasses.asdict(holder.refused)) if holder.refused else None
    listed = ListedModel(
        name=service.name,
        default=is_default,
        state=state,
        source=str(holder.source),
        refused=refused,
    )
    if not holder.ready:
        return listed
    predictor = holder.predictor
    return listed.model_copy(
        update=predictor.info
        | {"engine": predictor.engine, "memory_bytes": predictor.resident_bytes}
    )
