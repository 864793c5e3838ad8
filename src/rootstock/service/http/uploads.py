"""Read the images of a request."""

from __future__ import annotations

import base64
import binascii
import string
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from email.message import Message as Headers
from email.utils import collapse_rfc2231_value
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message

from rootstock.service.http.problems import Problem

_ELEMENTS_PER_IMAGE, _EXTRA_ELEMENTS = 100, 1_000
"""Elements that a JSON body may have per image, and in addition."""
_CHUNK_BYTES = 2**20
_BLANKS = b" \t\r\n\xef\xbb\xbf"
_BASE64_BYTES = (string.ascii_letters + string.digits + "+/= \t\r\n").encode()
_PROBE_BYTES = 64
"""Bytes to check: an image file has a non-base64 byte before this one, or begins with P."""
FIELD = "files"
"""The form field for images."""
EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4YRMFAAMuAV/M3aHKAAAAAElFTkSuQmCC"
)
"""An image of one pixel in base64, so that the examples work unchanged."""


class JsonImages(BaseModel):
    """The JSON body: image files in base64. URLs are not fetched."""

    images: list[str] = Field(fail_fast=True, min_length=1, examples=[[EXAMPLE]])


BODY_SCHEMAS: dict[str, dict[str, Any]] = {
    "ImageForm": {
        "title": "ImageForm",
        "description": "A form with image files.",
        "type": "object",
        "required": [FIELD],
        "properties": {
            FIELD: {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string", "format": "binary"},
            }
        },
    },
}
"""OpenAPI schemas of the bodies that `read_uploads` reads."""


@dataclass(frozen=True)
class Upload:
    """One file of a request."""

    filename: str
    content: bytes = b""


async def read_uploads(request: Request, *, max_images: int) -> list[Upload]:
    """Read the images of a request: the form's `files`, base64 `images` in JSON, or the body.

    Only a form is recognized by its declared type. Clients declare all kinds of types for
    images, or none, so the decoder decides what a file is.
    Raises:
        Problem: There is no file, there are too many files, or the body is unreadable.
    """
    _require_uncompressed(request)
    declared = _media_type(request.headers.get("content-type"))
    if declared == "multipart/form-data":
        return await _read_form(request, max_images)
    body = await request.body()
    if declared == "application/json" or body.lstrip(_BLANKS).startswith(b"{"):
        return _read_json(body, max_images)
    if not body and not declared:
        raise Problem("invalid-request", "The body is empty; send an image, a form or JSON.")
    return [Upload("body", body)]


class _FormParser(MultiPartParser):
    """Reads the form parts named `files` as files, in memory.

    Bodies are small enough to need no temporary file. Some clients give a file no name, or only
    one in the form `filename*` (RFC 5987), which Starlette does not read.
    """

    spool_max_size = sys.maxsize

    def on_headers_finished(self) -> None:
        part = self._current_part
        disposition = part.content_disposition or b""
        header = Headers()
        header["content-disposition"] = disposition.decode("latin-1")
        values = header.get_params([], "content-disposition")
        extended = [value for _, value in values if isinstance(value, tuple)]
        has_name = any(key == "filename" for key, _ in values)
        if extended or (("name", FIELD) in values and not has_name):
            part.content_disposition = disposition + b'; filename=""'
        super().on_headers_finished()
        if extended and part.file is not None:
            part.file.filename = collapse_rfc2231_value(extended[0])


def require_bounded(body: bytes, max_elements: int, max_nested: int) -> None:
    """Count a JSON body's elements before parsing it: a million objects take gigabytes.

    Raises:
        Problem: The body has over ``max_elements``, or over ``max_nested`` lists and objects.
    """
    elements = nested = 0
    for start in range(0, len(body), _CHUNK_BYTES):
        end = start + _CHUNK_BYTES
        elements += body.count(b",", start, end)
        nested += body.count(b"[", start, end) + body.count(b"{", start, end)
        if elements > max_elements or nested > max_nested:
            raise Problem(
                "invalid-request",
                f"The body has more than {max_elements} elements, or {max_nested} lists and "
                "objects.",
            )


def count_elements(max_images: int) -> int:
    """Return how many elements a JSON body of ``max_images`` images may have."""
    return _EXTRA_ELEMENTS + _ELEMENTS_PER_IMAGE * max_images


def bounded_route(
    max_elements: int,
    *,
    nested: int,
    split: Callable[[Request, bytes], bytes] = lambda _request, body: body,
) -> type[APIRoute]:
    """Return a class of routes whose JSON body is counted before it is parsed.

    ``split`` returns the JSON of a body that also holds other bytes. Any declared type is accepted:
    many clients send JSON without one.
    """

    class Bounded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_bounded(request: Request) -> Response:
                if request.method == "POST":
                    _require_uncompressed(request)
                    body = split(request, await request.body())
                    require_bounded(body, max_elements, nested)
                    request = _as_json(request, body)
                return await handle(request)

            return handle_bounded

    return Bounded


def _as_json(request: Request, body: bytes) -> Request:
    """Return a request with this JSON as its body.

    Raises:
        Problem: The body neither looks like JSON nor is declared as JSON.
    """
    declared = _media_type(request.headers.get("content-type"))
    is_declared = declared == "application/json" or declared.endswith("+json")
    if body and not is_declared and not body.lstrip(_BLANKS).startswith((b"{", b"[")):
        fault = repr(declared) if declared else "missing"
        raise Problem("unsupported-media-type", f"Send application/json; Content-Type is {fault}.")
    receive = request.receive
    rest = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return rest.pop() if rest else await receive()

    others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    request.scope["headers"] = [*others, (b"content-type", b"application/json")]
    return Request(request.scope, replay)


def decode_base64(texts: Sequence[str], name: str, max_images: int) -> list[bytes]:
    """Decode base64 texts; a problem calls them ``name``[number].

    Raises:
        Problem: There are more than ``max_images``, or one is not base64.
    """
    if len(texts) > max_images:
        raise Problem("invalid-request", f"{len(texts)} images; at most {max_images}.")
    return [_decode(text, f"{name}[{number}]") for number, text in enumerate(texts)]


def is_base64(content: bytes) -> bool:
    """Return whether bytes are base64 text, which no image file is."""
    return not content[:_PROBE_BYTES].translate(None, _BASE64_BYTES) and content[:1] != b"P"


def _decode(text: str, name: str) -> bytes:
    try:
        # Many tools break the lines; no other character is ignored.
        return base64.b64decode(text.encode("ascii").translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError):
        raise Problem(
            "invalid-request",
            f"{name} is not base64: send the file's bytes in the standard alphabet, without a "
            "`data:` prefix.",
        ) from None


def _read_json(body: bytes, max_images: int) -> list[Upload]:
    max_elements = count_elements(max_images)
    require_bounded(body, max_elements, max_elements)
    try:
        images = JsonImages.model_validate_json(body).images
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise Problem("invalid-request", f"{where}: {first['msg']}") from None
    contents = decode_base64(images, "images", max_images)
    return [Upload(f"images[{number}]", content) for number, content in enumerate(contents)]


async def _read_form(request: Request, max_images: int) -> list[Upload]:
    try:
        # One file more than allowed is parsed, so that we can answer with our own problem.
        parser = _FormParser(
            request.headers, request.stream(), max_files=max_images + 1, max_fields=16
        )
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem("bad-request", error.message) from None
    except UnicodeError:
        raise Problem(
            "bad-request", "A name in the multipart body has an invalid encoding."
        ) from None
    files = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
    if not files:
        raise Problem(
            "invalid-request", f"The multipart body has no field `{FIELD}`, or it is truncated."
        )
    if len(files) > max_images:
        raise Problem("invalid-request", f"More than {max_images} images.")
    return [
        # Some encodings produce half characters, which JSON cannot hold.
        Upload(
            (file.filename or f"{FIELD}[{number}]").encode("utf-8", "replace").decode(),
            await file.read(),
        )
        for number, file in enumerate(files)
    ]


def _require_uncompressed(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            "unsupported-media-type",
            "Send the body without Content-Encoding: images are already compressed.",
        )


def _media_type(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()[:100]
