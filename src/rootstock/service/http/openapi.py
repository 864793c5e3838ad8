"""The OpenAPI document: keys, and the problems that any route may answer."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from rootstock.service.http.access import Access, AccessTable
from rootstock.service.http.problems import SCHEMA, SCHEMA_NAME, document
from rootstock.service.http.uploads import BODY_SCHEMAS

_KEY_SCHEMES = {
    "X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
}
_BODY_KINDS = (
    "bad-request",
    "too-slow",
    "too-large",
    "unsupported-media-type",
    "invalid-request",
)
_WORK_KINDS = ("too-many-requests", "no-model", "overloaded", "too-late", "lost")
"""Problems of prediction requests; admin requests have no limits."""


def describe(app: FastAPI, access: AccessTable) -> None:
    """Add the middlewares' answers to the OpenAPI document of ``app``."""
    make_schema = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = make_schema()
            schema.setdefault("components", {})["securitySchemes"] = _KEY_SCHEMES
            for path, verbs in schema["paths"].items():
                for verb, operation in verbs.items():
                    _complete(operation, access.of_route(path), verb, path)
            _merge_predictions(schema["components"]["schemas"])
            schema["components"]["schemas"] |= {SCHEMA_NAME: SCHEMA, **BODY_SCHEMAS}
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _merge_predictions(schemas: dict[str, Any]) -> None:
    """Describe the answers of all tasks as one `Prediction` with the fields of each task.

    Generated clients try the types of an `anyOf` in turn, and every type has only optional fields.
    """
    items = schemas["PredictAnswer"]["properties"]["predictions"]["items"]
    if "anyOf" not in items:
        return
    names = [one["$ref"].rpartition("/")[2] for one in items["anyOf"]]
    properties: dict[str, Any] = {}
    for name in names:
        properties = schemas.pop(name)["properties"] | properties
    schemas["Prediction"] = {
        "title": "Prediction",
        "description": "The answer for one image. Its fields depend on the task.",
        "type": "object",
        "properties": properties,
    }
    schemas["PredictAnswer"]["properties"]["predictions"]["items"] = {
        "$ref": "#/components/schemas/Prediction"
    }


def _complete(operation: dict[str, Any], access: Access, verb: str, path: str) -> None:
    kinds = ["internal"]
    if "{name}" in path:
        kinds += ["not-found", "no-model"]
    if access != "open":
        kinds += ["unauthorized", "forbidden"] if access == "admin" else ["unauthorized"]
        operation["security"] = [{name: []} for name in _KEY_SCHEMES] + [{}]
    if verb == "post":
        kinds += _BODY_KINDS
        kinds += () if access == "admin" else _WORK_KINDS
    responses = operation["responses"]
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]  # FastAPI's default, which is never sent
        kinds.append("invalid-request")
    for number, entry in document(*kinds).items():
        response = responses.setdefault(str(number), entry)
        for media, content in entry["content"].items():
            examples = response["content"][media].get("examples", {})
            response["content"][media]["examples"] = content["examples"] | examples
        if "headers" in entry:
            response.setdefault("headers", entry["headers"])
    operation["responses"] = dict(sorted(responses.items()))
