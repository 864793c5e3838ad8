"""The OpenAPI document: what every route may answer besides its own, and how a key is shown."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from rootstock.service.http.access import is_open, role_for
from rootstock.service.http.problems import document

_KEYS = {
    "X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
}
_OF_ALL = ("internal",)
_OF_BODIES = (
    "bad-request",
    "too-slow",
    "too-large",
    "unsupported-media-type",
    "invalid-request",
)
_OF_WORK = ("too-many-requests", "no-model", "overloaded", "too-late", "lost")
"""Of what is asked of the model; an operator is not held up."""


def describe(app: FastAPI) -> None:
    """Let ``app`` document what its gate answers too."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = plain()
            found.setdefault("components", {})["securitySchemes"] = _KEYS
            for path, verbs in found["paths"].items():
                for verb, operation in verbs.items():
                    _complete(operation, path, verb)
            for unused in ("HTTPValidationError", "ValidationError"):
                found["components"]["schemas"].pop(unused, None)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(operation: dict[str, Any], path: str, verb: str) -> None:
    kinds, role = [*_OF_ALL], role_for(path)
    if not is_open(path):
        kinds += ["unauthorized", "forbidden"] if role == "admin" else ["unauthorized"]
        operation["security"] = [{name: []} for name in _KEYS] + [{}]
    if verb == "post":
        kinds += _OF_BODIES
        kinds += () if role == "admin" else _OF_WORK
    responses = operation["responses"]
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]  # FastAPI's own, which is never sent
        kinds.append("invalid-request")
    for number, entry in document(*kinds).items():
        known = responses.setdefault(str(number), entry)
        for media, content in entry["content"].items():
            shown = known["content"][media].setdefault("examples", {})
            known["content"][media]["examples"] = content["examples"] | shown
        if "headers" in entry:
            known.setdefault("headers", entry["headers"])
    operation["responses"] = dict(sorted(responses.items()))
