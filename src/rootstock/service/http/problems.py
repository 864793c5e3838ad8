"""Problem details (RFC 9457): every error of the service has a stable type, title and detail.

The list below is the contract; `detail` texts are for people and may change. A problem repeats
nothing from the request except file names, and reveals no internals of the service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope, Send

from rootstock.errors import ImageError
from rootstock.service.models.waits import NotLoadedError

MEDIA_TYPE = "application/problem+json"
PREFIX = "urn:rootstock:problem:"

KINDS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "Bad request"),
    "unauthorized": (401, "API key required"),
    "forbidden": (403, "Not allowed with this key"),
    "not-found": (404, "Not found"),
    "method-not-allowed": (405, "Method not allowed"),
    "too-slow": (408, "Request too slow"),
    "conflict": (409, "Not possible now"),
    "too-large": (413, "Request too large"),
    "unsupported-media-type": (415, "Unsupported media type"),
    "invalid-request": (422, "Invalid request"),
    "unusable-image": (422, "Unusable image"),
    "too-many-requests": (429, "Too many requests"),
    "internal": (500, "Internal error"),
    "no-model": (503, "No model loaded"),
    "overloaded": (503, "Service overloaded"),
    "too-late": (503, "Answer not ready in time"),
    "lost": (503, "Work lost"),
}

MAX_ERRORS = 5
"""Maximum errors listed per answer: a client may cause a million."""


@dataclass
class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """One problem: a key of KINDS, a sentence for people, and further members."""

    kind: str
    detail: str
    headers: Mapping[str, str] | None = None
    members: Mapping[str, Any] | None = None

    @property
    def status(self) -> int:
        return KINDS[self.kind][0]

    def body(self) -> dict[str, Any]:
        """Return the answer's JSON object, without its status."""
        title = KINDS[self.kind][1]
        return {"type": PREFIX + self.kind, "title": title, "detail": self.detail} | dict(
            self.members or {}
        )

    def response(self) -> Response:
        return JSONResponse(
            {"status": self.status} | self.body(),
            status_code=self.status,
            headers=dict(self.headers or {}),
            media_type=MEDIA_TYPE,
        )


def image_problem(error: ImageError) -> Problem:
    """Return the problem of one image; `reason` is the decoder's stable word."""
    return Problem("unusable-image", error.message, members={"reason": error.reason})


def internal_problem() -> Problem:
    """Return the problem for a fault of the service."""
    return Problem("internal", "The request failed; see the service's log.")


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem, including FastAPI's own errors."""

    def answer(error_class: type[Exception], make: Callable[[Request, Any], Problem]) -> None:
        async def handle(request: Request, error: Exception) -> Response:
            problem = make(request, error)
            request.state.problem = problem.kind  # counted by the observer
            return _respond(request.url.path, problem)

        app.add_exception_handler(error_class, handle)

    async def ignore(_request: Request, _error: Exception) -> Response:
        return Response(status_code=400)  # the client has disconnected

    answer(Exception, lambda _request, _error: internal_problem())
    answer(Problem, lambda _request, problem: problem)
    answer(NotLoadedError, lambda _request, error: not_loaded_problem(error))
    answer(HTTPException, _from_http)
    answer(RequestValidationError, _from_validation)
    app.add_exception_handler(ClientDisconnect, ignore)


async def send_refusal(send: Send, scope: Scope, problem: Problem) -> None:
    """Answer with a problem at minimal cost: under overload most requests end here."""
    scope["state"]["problem"] = problem.kind
    headers = tuple((problem.headers or {}).items())
    is_v2 = scope["path"].startswith("/v2")
    status, raw_headers, body = _encode(is_v2, problem.kind, problem.detail, headers)
    await send({"type": "http.response.start", "status": status, "headers": list(raw_headers)})
    await send({"type": "http.response.body", "body": body})


@lru_cache(maxsize=256)
def _encode(
    is_v2: bool, kind: str, detail: str, headers: tuple[tuple[str, str], ...]
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    response = _respond("/v2" if is_v2 else "/", Problem(kind, detail, headers=dict(headers)))
    return response.status_code, response.raw_headers, bytes(response.body)


def _respond(path: str, problem: Problem) -> Response:
    if path.startswith("/v2"):
        # The Open Inference Protocol requires this member.
        problem.members = {"error": problem.detail} | dict(problem.members or {})
    return problem.response()


def not_loaded_problem(error: NotLoadedError) -> Problem:
    """Return the problem of a model that is not loaded yet."""
    return Problem("no-model", error.message, headers={"Retry-After": str(error.retry_seconds)})


def _from_http(request: Request, error: HTTPException) -> Problem:
    if isinstance(error.__cause__, Problem):
        return error.__cause__  # FastAPI was reading a body that has a limit
    if error.status_code == 404:
        return Problem("not-found", "No route matches this address; /docs lists all routes.")
    if error.status_code == 405:
        allowed = Headers(error.headers).get("allow", "")
        return Problem(
            "method-not-allowed",
            f"{request.method} is not supported here" + (f"; use {allowed}." if allowed else "."),
            headers=error.headers,
        )
    return Problem("bad-request", str(error.detail), headers=error.headers)


def _from_validation(_request: Request, error: RequestValidationError) -> Problem:
    return validation_problem(error.errors())


def validation_problem(found: Sequence[Any]) -> Problem:
    """Return the problem of a body with these errors, as pydantic lists them."""
    errors = [
        {"where": ".".join(map(str, item["loc"])), "message": item["msg"]}
        for item in found[:MAX_ERRORS]
    ]
    detail = "; ".join(f"{item['where']}: {item['message']}" for item in errors)
    return Problem("invalid-request", detail, members={"errors": errors})


def document(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` entry for these kinds of problems."""
    entries: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, title = KINDS[kind]
        entry = entries.setdefault(
            status,
            {"description": title, "content": {MEDIA_TYPE: {"schema": _REFERENCE, "examples": {}}}},
        )
        example = {"status": status} | Problem(kind, _EXAMPLES.get(kind, title + ".")).body()
        entry["content"][MEDIA_TYPE]["examples"][kind] = {"summary": title, "value": example}
        if status in (429, 503):
            entry["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
            }
    return entries


_EXAMPLES = {
    "too-large": "The body is longer than 67,108,864 bytes, the service's MAX_BODY_BYTES.",
    "unsupported-media-type": "text/plain is not an image type.",
    "unusable-image": "the file ends early: image file is truncated",
    "invalid-request": "query.top_k: Input should be greater than or equal to 1",
}
SCHEMA_NAME = "ProblemDetails"
_REFERENCE = {"$ref": f"#/components/schemas/{SCHEMA_NAME}"}
SCHEMA = {
    "title": SCHEMA_NAME,
    "description": "An error (RFC 9457). `type` is stable; `detail` is for people.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri", "enum": [PREFIX + kind for kind in KINDS]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string", "description": "Unusable images: a stable word."},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
