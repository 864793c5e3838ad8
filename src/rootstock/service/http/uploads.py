"""Read the images of a request."""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from rootstock.service.http.problems import Problem

IMAGE_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/gif",
    "image/bmp",
    "image/tiff",
)
_ALIASES = {"image/jpg", "image/pjpeg", "image/x-png", "image/x-ms-bmp", "image/x-bmp", "image/mpo"}
_UNKNOWN_TYPES = {"", "application/octet-stream", "binary/octet-stream"}
_ELEMENTS_PER_IMAGE, _EXTRA_ELEMENTS = 100, 1_000
"""Elements that a JSON body may have for each image, and in addition to them."""
_CHUNK_BYTES = 2**20
EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4YRMFAAMuAV/M3aHKAAAAAElFTkSuQmCC"
)
"""An image of one pixel in base64, so that the examples work unchanged."""


class JsonImages(BaseModel):
    """The JSON body: image files in base64. Addresses are not fetched."""

    images: list[str] = Field(fail_fast=True, min_length=1, examples=[[EXAMPLE]])


@dataclass(frozen=True)
class Upload:
    """One file of a request: its bytes, or the problem with its declared type."""

    filename: str
    content: bytes = b""
    problem: Problem | None = None


async def read_uploads(request: Request, *, max_images: int) -> list[Upload]:
    """Read the images of a request: the form's `files`, base64 `images` in JSON, or the body.

    Raises:
        Problem: no file, too many files, an unreadable body, or a type that is not an image's.
    """
    _require_uncompressed(request)
    declared = _media_type(request.headers.get("content-type"))
    if declared == "multipart/form-data":
        return await _read_form(request, max_images)
    if declared == "application/json":
        return _read_json(await request.body(), max_images)
    if not _is_image_type(declared):
        raise _not_an_image_type(declared, "Content-Type")
    return [Upload("body", await request.body())]


class _InMemoryParser(MultiPartParser):
    """Keeps files in memory, which bodies are small enough for: none is written to the disk."""

    spool_max_size = sys.maxsize


def require_bounded(body: bytes, max_elements: int, max_nested: int) -> None:
    """Count the elements of a JSON body before it is parsed: a million objects take gigabytes.

    Raises:
        Problem: more than ``max_elements``, or more than ``max_nested`` lists and objects.
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


def bounded_route(max_elements: int, *, nested: int) -> type[APIRoute]:
    """Return a class of routes whose body must be JSON and is counted before it is parsed."""

    class Bounded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_bounded(request: Request) -> Response:
                if request.method == "POST":
                    body = await request.body()
                    if body:
                        _require_json(request)
                    require_bounded(body, max_elements, nested)
                return await handle(request)

            return handle_bounded

    return Bounded


def decode_base64(texts: Sequence[str], name: str, max_images: int) -> list[bytes]:
    """Decode texts in base64; a problem calls them ``name``[number].

    Raises:
        Problem: there are more than ``max_images``, or one is not base64.
    """
    if len(texts) > max_images:
        raise Problem("invalid-request", f"{len(texts)} images; at most {max_images}.")
    return [_decode(text, f"{name}[{number}]") for number, text in enumerate(texts)]


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
        # One more file than allowed is parsed, so that the problem is ours.
        parser = _InMemoryParser(
            request.headers, request.stream(), max_files=max_images + 1, max_fields=16
        )
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem("bad-request", error.message) from None
    except UnicodeError:
        raise Problem(
            "bad-request", "A name in the multipart body has an invalid encoding."
        ) from None
    files = form.getlist("files")
    if not files:
        raise Problem(
            "invalid-request", "The multipart body has no field `files`, or it is truncated."
        )
    if len(files) > max_images:
        raise Problem("invalid-request", f"More than {max_images} images.")
    uploads = []
    for number, file in enumerate(files):
        if not isinstance(file, UploadFile):
            raise Problem(
                "invalid-request", f"Part {number} of the field `files` is text, not a file."
            )
        uploads.append(await _read_part(file, number))
    return uploads


async def _read_part(file: UploadFile, number: int) -> Upload:
    # Some encodings give half characters, which JSON cannot hold.
    name = (file.filename or f"files[{number}]").encode("utf-8", "replace").decode()
    declared = _media_type(file.content_type)
    # Clients send octet-stream for unknown file endings: the decoder decides.
    if declared in _UNKNOWN_TYPES or _is_image_type(declared):
        return Upload(name, await file.read())
    return Upload(name, problem=_not_an_image_type(declared, "The type of the file"))


def _is_image_type(declared: str) -> bool:
    return declared in IMAGE_TYPES or declared in _ALIASES


def _not_an_image_type(declared: str, field: str) -> Problem:
    fault = f"is {declared!r}" if declared else "is missing"
    return Problem(
        "unsupported-media-type",
        f"{field} {fault}; send one of {', '.join(IMAGE_TYPES)}.",
        headers={"Accept": ", ".join(IMAGE_TYPES)},
    )


def _require_uncompressed(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            "unsupported-media-type",
            "Send the body without Content-Encoding: images are compressed.",
        )


def _require_json(request: Request) -> None:
    _require_uncompressed(request)
    declared = _media_type(request.headers.get("content-type"))
    if "inference-header-content-length" in request.headers:
        raise Problem(
            "unsupported-media-type", "The binary tensor extension is not supported; send JSON."
        )
    if declared != "application/json" and not declared.endswith("+json"):
        fault = repr(declared) if declared else "missing"
        raise Problem("unsupported-media-type", f"Send application/json; Content-Type is {fault}.")


def _media_type(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()[:100]
