"""The HTTP interface: requests to images, one call of the Predictor, answers to JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from rootstock.errors import ImageError
from rootstock.predict import Prediction
from services.inference.problems import Problem, document, image_problem
from services.inference.schemas import ModelAnswer, PredictAnswer, Status
from services.inference.service import Service
from services.inference.uploads import IMAGE_TYPES, Upload, read_uploads

TopK = Annotated[int | None, Query(ge=1, description="Labels per image; at most all, usually 5.")]

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One or many images as a form, or the bytes of one image.",
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
            }
        }
        | dict.fromkeys(IMAGE_TYPES, _IMAGE),
    }
}
# The pages load nothing from elsewhere, and a browser is told to hold them to it.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def make_router(service: Service) -> APIRouter:
    """All routes of the service."""
    router = APIRouter()
    holder, telemetry, settings = service.holder, service.telemetry, service.settings

    @router.post(
        "/v1/predict",
        summary="Classify images",
        tags=["prediction"],
        response_model=PredictAnswer,
        response_model_exclude_none=True,
        openapi_extra=_BODY,
        responses=document(
            "bad-request",
            "too-large",
            "unsupported-media-type",
            "unusable-image",
            "invalid-request",
            "no-model",
            "overloaded",
        ),
    )
    async def predict(
        request: Request,
        top_k: TopK = None,
    ) -> dict[str, Any]:
        """An image that cannot be used gets an `error` in its place; if all are so: 422."""
        predictor = holder.predictor
        service.refuse_overload()
        uploads = await read_uploads(request, max_images=settings.max_images)
        contents = [upload.content for upload in uploads if upload.problem is None]
        results = iter(await service.classify(predictor, contents, top_k or settings.top_k_default))
        entries = [_entry(upload, upload.problem or next(results)) for upload in uploads]
        for entry in entries:
            telemetry.images.labels(_outcome(entry)).inc()
        if all("error" in entry for entry in entries):
            raise _all_bad(entries)
        return {"model": predictor.info, "predictions": entries}

    @router.get(
        "/v1/model",
        summary="The model in use",
        tags=["prediction"],
        response_model=ModelAnswer,
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
            "digest": predictor.bundle.digest,
        }

    @router.get("/healthz", summary="Is the process alive?", tags=["operation"])
    async def healthz() -> Status:
        """200 as long as the process answers at all, with or without a model."""
        return Status(status="ok")

    @router.get(
        "/readyz",
        summary="Is there a model to answer with?",
        tags=["operation"],
        responses=document("no-model"),
    )
    async def readyz() -> Status:
        """200 once a model is loaded and has given its golden answers, else 503."""
        _ = holder.predictor
        return Status(status="ready")

    @router.get("/metrics", summary="Counters for Prometheus", tags=["operation"])
    async def metrics() -> Response:
        """Requests, durations, images by outcome, and the model in use."""
        return telemetry.exposition(
            holder.predictor if holder.ready else None, waiting=service.waiting
        )

    @router.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return _page("page.html")

    @router.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return _page("docs.html")

    return router


def _page(name: str) -> HTMLResponse:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return HTMLResponse(text, headers=_PAGE_HEADERS)


def _entry(upload: Upload, result: Prediction | ImageError | Problem) -> dict[str, Any]:
    if isinstance(result, Prediction):
        top = [{"label": label, "probability": share} for label, share in result.top]
        return {"filename": upload.filename, "top": top}
    problem = image_problem(result) if isinstance(result, ImageError) else result
    return {"filename": upload.filename, "error": problem.body()}


def _outcome(entry: dict[str, Any]) -> str:
    error = entry.get("error")
    return "ok" if error is None else error.get("reason", "unsupported-media-type")


def _all_bad(entries: list[dict[str, Any]]) -> Problem:
    """One problem for the whole answer; 415 only if no file even claims to be an image."""
    first = entries[0]["error"]
    kinds = {entry["error"]["type"].rpartition(":")[2] for entry in entries}
    kind = kinds.pop() if len(kinds) == 1 else "unusable-image"
    if len(entries) == 1:
        members = {key: first[key] for key in ("reason",) if key in first}
        return Problem(kind, first["detail"], members=members)
    return Problem(
        kind,
        f"None of the {len(entries)} images can be used; the first: {first['detail']}",
        members={"errors": [{"filename": e["filename"]} | e["error"] for e in entries]},
    )
