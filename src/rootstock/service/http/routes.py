"""The routes below /v1: read images, call the service, and write the answers as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from anyio.to_thread import run_sync
from fastapi import Query, Request
from fastapi.responses import Response

from rootstock.explain.heat_map import HeatMap
from rootstock.explain.overlay import draw_overlay, encode_png
from rootstock.service.http.access import Router
from rootstock.service.http.answers import (
    choose_model,
    classify,
    describe,
    infer_uploads,
)
from rootstock.service.http.chosen import NAMED_PREFIX, depend_on_service
from rootstock.service.http.problems import Problem, document
from rootstock.service.http.schemas import (
    DriftAnswer,
    Embedding,
    EmbeddingsAnswer,
    ModelAnswer,
    ModelName,
    SimilarAnswer,
    make_predict_answer,
)
from rootstock.service.http.uploads import read_uploads
from rootstock.service.inference.service import Service
from rootstock.service.inference.services import Services
from rootstock.tasks.answer import AnswerError, Neighbour
from rootstock.tasks.task import AnswerOptions

TopK = Annotated[int | None, Query(ge=1, description="Labels per image. Default: 5.")]
Coverage = Annotated[
    float | None,
    Query(
        gt=0,
        lt=1,
        description="Also return a set of labels that holds the true one in this share of cases.",
        examples=[0.95],
    ),
]

Neighbours = Annotated[
    int, Query(ge=0, le=50, description="Also list this many of the most similar training images.")
]
Count = Annotated[int, Query(ge=1, le=1000, description="Number of images to return.")]
Explain = Annotated[
    bool, Query(description="Also return heat maps that show where the evidence is.")
]
Output = Annotated[
    str,
    Query(description="The class, label, or number to explain, or `box`. Default: the answer."),
]
Strengths = Annotated[
    list[Annotated[float, Query(ge=0, le=1)]],
    Query(
        min_length=1,
        max_length=4,
        description="0 leaves the image unchanged. Several values give pictures side by side.",
    ),
]


class PngResponse(Response):
    """A picture."""

    media_type = "image/png"


DEFAULT_STRENGTHS = [1.0]
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Image files as a form, or the bytes of one image. The content decides, "
        'so an image may have any type. JSON also works: `{"images": ["<base64>"]}`.',
        # Generated clients use the first type, but openapi-generator's use any that is JSON: with
        # JSON in the list, its clients would send a form's files as an empty JSON body.
        "content": {
            "multipart/form-data": {"schema": {"$ref": "#/components/schemas/ImageForm"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_PROBLEMS = document("unusable-image")


def make_router(services: Services, *, named: bool = False) -> Router:
    """Create the routes below /v1, of the default model or (``named``) of each model."""
    PredictAnswer = make_predict_answer()  # noqa: N806 - a type
    start = f"/v1{NAMED_PREFIX}" if named else "/v1"
    router = Router("predict", suffix="_named" if named else "")
    settings = services.default.settings
    chosen = depend_on_service(services, named=named)

    @router.post(
        f"{start}/predict",
        summary="Classify images",
        tags=["prediction"],
        response_model=PredictAnswer,
        openapi_extra=_BODY,
        responses=_PROBLEMS,
    )
    async def predict(
        request: Request,
        top_k: TopK = None,
        coverage: Coverage = None,
        neighbours: Neighbours = 0,
        explain: Explain = False,
        output: Output = "",
        service: Service = chosen,
    ) -> Response:
        """An unusable image gets an `error` in its place. If none is usable, the answer is 422."""
        options = AnswerOptions(top_k or settings.top_k_default, coverage, neighbours)
        predictor = choose_model(service, options)
        uploads = await read_uploads(request, max_images=settings.max_images)
        predictor, answers = await classify(
            service,
            request,
            predictor,
            uploads,
            options,
            explained=output if explain or output else None,
        )
        _require_any_usable([(answer.filename, answer.error) for answer in answers])
        checked = PredictAnswer(model=predictor.info, predictions=answers)
        return Response(checked.model_dump_json(exclude_none=True), media_type="application/json")

    @router.post(
        f"{start}/explain",
        summary="Picture of what an answer rests on",
        tags=["prediction"],
        response_class=PngResponse,
        openapi_extra=_BODY,
        responses=_PROBLEMS,
    )
    async def explain(
        request: Request,
        output: Output = "",
        strength: Strengths = DEFAULT_STRENGTHS,
        service: Service = chosen,
    ) -> PngResponse:
        """The part of one image that the model looked at, tinted where the evidence is."""
        predictor = service.holder.predictor
        (upload,) = await read_uploads(request, max_images=1)
        (result,) = await infer_uploads(service, request, predictor, [upload], output)
        if isinstance(result, Problem):
            raise result
        return PngResponse(await run_sync(_draw, result.heat_maps[0], strength))

    @router.post(
        f"{start}/similar",
        summary="Similar images",
        tags=["prediction"],
        response_model=SimilarAnswer,
        response_model_exclude_none=True,
        openapi_extra=_BODY,
        responses=document("unusable-image", "not-found"),
    )
    async def similar(request: Request, n: Count = 5, service: Service = chosen) -> SimilarAnswer:
        """The most similar images of the index (`ROOTSTOCK_INDEX`), or of the training images."""
        predictor = service.holder.predictor
        (upload,) = await read_uploads(request, max_images=1)
        index = await run_sync(service.open_index, predictor)
        (result,) = await infer_uploads(service, request, predictor, [upload])
        if isinstance(result, Problem):
            raise result
        (matches,) = await run_sync(index.search, result.features[None], n)
        found = [
            Neighbour(index.paths[one.row], index.targets[one.row], round(one.distance, 4))
            for one in matches
        ]
        return SimilarAnswer(model=ModelName(**predictor.info), similar=found)

    @router.post(
        f"{start}/embeddings",
        summary="Features of images",
        tags=["prediction"],
        response_model=EmbeddingsAnswer,
        openapi_extra=_BODY,
        responses=_PROBLEMS,
    )
    async def embeddings(request: Request, service: Service = chosen) -> Response:
        """The features that the model's head reads, for search, clustering and the like."""
        predictor = service.holder.predictor
        uploads = await read_uploads(request, max_images=settings.max_images)
        results = await infer_uploads(service, request, predictor, uploads)
        entries = [
            Embedding(filename=upload.filename, error=describe(result))
            if isinstance(result, Problem)
            else Embedding(filename=upload.filename, embedding=result.features.tolist())
            for upload, result in zip(uploads, results, strict=True)
        ]
        _require_any_usable([(entry.filename, entry.error) for entry in entries])
        width = predictor.bundle.facts.feature_width
        checked = EmbeddingsAnswer(model=predictor.info, width=width, embeddings=entries)
        return Response(checked.model_dump_json(exclude_none=True), media_type="application/json")

    @router.get(
        start if named else f"{start}/model",
        summary="The model in use",
        tags=["prediction"],
        response_model=ModelAnswer,
        response_model_exclude_none=True,
        responses=document("no-model"),
    )
    async def model(service: Service = chosen) -> dict[str, Any]:
        """Classes, test metrics, lineage and preprocessing of the model in use."""
        predictor = service.holder.predictor
        facts, holder = predictor.bundle.facts, service.holder
        return predictor.info | {
            "classes": predictor.names,
            "metrics": predictor.bundle.metrics,
            "headline": predictor.task.headline,
            "card": predictor.bundle.model_card or None,
            "lineage": facts.lineage,
            "preprocess": facts.preprocess,
            "preprocess_hash": facts.preprocess_hash,
            "temperature": facts.calibration.get("temperature"),
            "backbone": str(facts.card.get("name", "")),
            "engine": predictor.engine,
            "precision": predictor.precision,
            "engine_milliseconds": predictor.milliseconds,
            "int8": facts.int8.model_dump() if facts.int8 else None,
            "unknown_share": facts.unknown_share,
            "source": str(holder.source),
            "pinned": holder.pinned,
            "registry_up": holder.registry_up,
            "refused": dataclasses.asdict(holder.refused) if holder.refused else None,
            "digest": predictor.bundle.digest,
        }

    @router.get(
        f"{start}/drift",
        summary="Recent images against the validation set",
        tags=["operation"],
        responses=document("no-model"),
    )
    async def drift(service: Service = chosen) -> DriftAnswer:
        """Population stability indices: 0.1 deserves a look, 0.25 calls for new data."""
        return DriftAnswer(**service.drift.report(service.holder.predictor))

    @router.get(
        f"{start}/challenger",
        summary="Champion against challenger",
        tags=["operation"],
        responses=document("not-found"),
    )
    async def challenger(service: Service = chosen) -> dict[str, Any]:
        """Agreement and latency of the two on live requests."""
        if service.challenger is None:
            raise Problem("not-found", "No challenger is configured (ROOTSTOCK_CHALLENGER).")
        return service.challenger.report()

    return router


def _draw(heat_map: HeatMap, strengths: Sequence[float]) -> bytes:
    """Return a PNG of overlays side by side."""
    parts = [draw_overlay(heat_map, strength=strength) for strength in strengths]
    return encode_png(np.concatenate(parts, axis=1))


def _require_any_usable(entries: Sequence[tuple[str, AnswerError | None]]) -> None:
    """Raise one problem if no image is usable. Faults of the service come before the images'."""
    errors = [(filename, error) for filename, error in entries if error is not None]
    if len(errors) < len(entries):
        return
    first = errors[0][1]
    kinds = {str(error.type).rpartition(":")[2] for _, error in errors}
    faults = [kind for kind in ("internal", "lost") if kind in kinds]
    kind = kinds.pop() if len(kinds) == 1 else [*faults, "unusable-image"][0]
    if len(errors) == 1:
        raise Problem(kind, first.detail, members={"reason": first.reason} if first.reason else {})
    raise Problem(
        kind,
        f"None of the {len(errors)} images can be used; the first: {first.detail}",
        headers={"Retry-After": "1"} if kind == "lost" else None,
        members={
            "errors": [{"filename": filename} | error.to_json() for filename, error in errors]
        },
    )
