"""The routes below /v1: read images, call the service, write the answers as JSON."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import JSONResponse, Response

from rootstock.model.predictor import Predictor
from rootstock.service.http.access import Router
from rootstock.service.http.answers import (
    Answer,
    choose_model,
    classify,
    infer_uploads,
)
from rootstock.service.http.problems import Problem, document
from rootstock.service.http.schemas import (
    DriftAnswer,
    EmbeddingsAnswer,
    ModelAnswer,
    PredictAnswer,
)
from rootstock.service.http.uploads import EXAMPLE, IMAGE_TYPES, JsonImages, Upload, read_uploads
from rootstock.service.inference.service import Service

TopK = Annotated[int | None, Query(ge=1, description="Labels per image; by default 5.")]
Coverage = Annotated[
    float | None,
    Query(
        gt=0,
        lt=1,
        description="Also return labels that include the true one in this share of cases.",
        examples=[0.95],
    ),
]

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One or many images as a form or in base64, or the bytes of one image.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "application/json": {
                "schema": JsonImages.model_json_schema(),
                "example": {"images": [EXAMPLE]},
            },
        }
        | dict.fromkeys(IMAGE_TYPES, _IMAGE),
    }
}
_PROBLEMS = document("unusable-image")


def make_router(service: Service) -> Router:
    """Make the routes below /v1."""
    router = Router("predict")
    holder, settings = service.holder, service.settings

    @router.post(
        "/v1/predict",
        summary="Classify images",
        tags=["prediction"],
        response_model=PredictAnswer,
        openapi_extra=_BODY,
        responses=_PROBLEMS,
    )
    async def predict(request: Request, top_k: TopK = None, coverage: Coverage = None) -> Response:
        """An unusable image gets an `error` in its place; if no image is usable, it is a 422."""
        predictor = choose_model(service, coverage=coverage)
        uploads = await read_uploads(request, max_images=settings.max_images)
        predictor, answers = await classify(
            service,
            request,
            predictor,
            uploads,
            top_k=top_k or settings.top_k_default,
            coverage=coverage,
        )
        entries = [_entry(upload, answer) for upload, answer in zip(uploads, answers, strict=True)]
        _require_any_usable(entries)
        return JSONResponse({"model": _short(predictor), "predictions": entries})

    @router.post(
        "/v1/embeddings",
        summary="Features of images",
        tags=["prediction"],
        response_model=EmbeddingsAnswer,
        openapi_extra=_BODY,
        responses=_PROBLEMS,
    )
    async def embeddings(request: Request) -> Response:
        """The features that the model's head reads, for search, clustering and the like."""
        predictor = holder.predictor
        uploads = await read_uploads(request, max_images=settings.max_images)
        results = await infer_uploads(service, request, predictor, uploads)
        entries: list[dict[str, Any]] = [
            {"filename": upload.filename}
            | (
                {"error": result.body()}
                if isinstance(result, Problem)
                else {"embedding": [float(value) for value in result.features]}
            )
            for upload, result in zip(uploads, results, strict=True)
        ]
        _require_any_usable(entries)
        width = predictor.bundle.facts.feature_width
        return JSONResponse({"model": _short(predictor), "width": width, "embeddings": entries})

    @router.get(
        "/v1/model",
        summary="The model in use",
        tags=["prediction"],
        response_model=ModelAnswer,
        response_model_exclude_none=True,
        responses=document("no-model"),
    )
    async def model() -> dict[str, Any]:
        """Classes, test metrics, lineage and preprocessing of the model in use."""
        predictor = holder.predictor
        facts = predictor.bundle.facts
        return predictor.info | {
            "metrics": facts.metrics,
            "lineage": facts.lineage,
            "preprocess": facts.preprocess,
            "preprocess_hash": facts.preprocess_hash,
            "temperature": facts.temperature,
            "backbone": str(facts.card.get("name", "")),
            "engine": predictor.engine,
            "engine_milliseconds": predictor.milliseconds,
            "unknown_share": facts.unknown_share,
            "source": str(holder.source),
            "pinned": holder.pinned,
            "registry_up": holder.registry_up,
            "refused": dataclasses.asdict(holder.refused) if holder.refused else None,
            "digest": predictor.bundle.digest,
        }

    @router.get(
        "/v1/drift",
        summary="Recent images against the validation set",
        tags=["operation"],
        responses=document("no-model"),
    )
    async def drift() -> DriftAnswer:
        """Population stability indices: 0.1 deserves a look, 0.25 calls for new data."""
        return DriftAnswer(**service.drift.report(holder.predictor))

    @router.get(
        "/v1/challenger",
        summary="Champion against challenger",
        tags=["operation"],
        responses=document("not-found"),
    )
    async def challenger() -> dict[str, Any]:
        """Agreement and latency of the two on live requests."""
        if service.challenger is None:
            raise Problem("not-found", "No challenger is configured (ROOTSTOCK_CHALLENGER).")
        return service.challenger.report()

    return router


def _short(predictor: Predictor) -> dict[str, str]:
    return {key: predictor.info[key] for key in ("name", "version", "strategy")}


def _entry(upload: Upload, answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Problem):
        return {"filename": upload.filename, "error": answer.body()}
    entry: dict[str, Any] = {
        "filename": upload.filename,
        "top": [{"label": label, "probability": share} for label, share in answer.top],
    }
    if answer.novelty is not None:
        entry |= {"unknown": answer.unknown, "novelty": round(answer.novelty, 4)}
    if answer.labels is not None:
        entry["labels"] = list(answer.labels)
    return entry


def _require_any_usable(entries: list[dict[str, Any]]) -> None:
    """Raise one problem if no image is usable.

    The service's own faults come before the images'; it is 415 only if no file is said to be an
    image.
    """
    if not all("error" in entry for entry in entries):
        return
    first = entries[0]["error"]
    kinds = {entry["error"]["type"].rpartition(":")[2] for entry in entries}
    faults = [kind for kind in ("internal", "lost") if kind in kinds]
    kind = kinds.pop() if len(kinds) == 1 else [*faults, "unusable-image"][0]
    if len(entries) == 1:
        members = {key: first[key] for key in ("reason",) if key in first}
        raise Problem(kind, first["detail"], members=members)
    raise Problem(
        kind,
        f"None of the {len(entries)} images can be used; the first: {first['detail']}",
        headers={"Retry-After": "1"} if kind == "lost" else None,
        members={"errors": [{"filename": entry["filename"]} | entry["error"] for entry in entries]},
    )
