"""From a request to the images in it."""

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
_UNKNOWN = {"", "application/octet-stream", "binary/octet-stream"}


_PER_IMAGE, _BESIDES = 100, 1_000
"""Elements of a JSON body: what clients put beside each image, and beside them all."""
_PIECE = 2**20


EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4YRMFAAMuAV/M3aHKAAAAAElFTkSuQmCC"
)
"""An image of one pixel, in base64, so that the examples work as they stand."""


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
    """The images of a request: multipart field `files`, JSON `images` in base64, or the body.

    Raises:
        Problem: no file, too many files, a body that cannot be read, or no image type.
    """
    _require_unpacked(request)
    declared = _media_type(request.headers.get("content-type"))
    if declared == "multipart/form-data":
        return await _read_form(request, max_images)
    if declared == "application/json":
        return _read_json(await request.body(), max_images)
    if not _is_image_type(declared):
        raise _not_an_image_type(declared, "Content-Type")
    return [Upload("body", await request.body())]


class _InMemory(MultiPartParser):
    """Bodies are bounded and stay in memory: no image of a stranger touches the disk."""

    spool_max_size = sys.maxsize


def require_few(body: bytes, most: int, nested: int) -> None:
    """Count a JSON body's elements before anything is made of them: a million cost gigabytes.

    Raises:
        Problem: more than ``most``, or more than ``nested`` lists and objects, which cost more.
    """
    found = inner = 0
    for start in range(0, len(body), _PIECE):
        end = start + _PIECE
        found += body.count(b",", start, end)
        inner += body.count(b"[", start, end) + body.count(b"{", start, end)
        if found > most or inner > nested:
            raise Problem(
                "invalid-request",
                f"The body has more than {most} elements, or {nested} lists and objects.",
            )


def elements(max_images: int) -> int:
    """How many elements a JSON body of so many images may have."""
    return _BESIDES + _PER_IMAGE * max_images


def bounded_route(most: int, *, nested: int) -> type[APIRoute]:
    """Routes whose body has to be JSON, and is counted before it is parsed."""

    class Bounded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def counted(request: Request) -> Response:
                if request.method == "POST":
                    body = await request.body()
                    if body:
                        _require_json(request)
                    require_few(body, most, nested)
                return await handle(request)

            return counted

    return Bounded


def decode_base64(texts: Sequence[str], name: str, max_images: int) -> list[bytes]:
    """The bytes of texts in base64; ``name`` says in a problem what they are.

    Raises:
        Problem: too many, or one is not base64.
    """
    if len(texts) > max_images:
        raise Problem("invalid-request", f"{len(texts)} images; at most {max_images}.")
    return [_decode(text, f"{name}[{number}]") for number, text in enumerate(texts)]


def _decode(text: str, where: str) -> bytes:
    try:
        # Many tools break lines; that is all that is forgiven.
        return base64.b64decode(text.encode("ascii").translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError):
        raise Problem(
            "invalid-request",
            f"{where} is not base64: send the file's bytes in the standard alphabet, without a "
            "`data:` prefix.",
        ) from None


def _read_json(body: bytes, max_images: int) -> list[Upload]:
    require_few(body, elements(max_images), elements(max_images))
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
        # One more is read, so that too many are told in our words.
        parser = _InMemory(
            request.headers, request.stream(), max_files=max_images + 1, max_fields=16
        )
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem("bad-request", error.message) from None
    except UnicodeError:
        raise Problem("bad-request", "A name in the multipart body cannot be read.") from None
    files = form.getlist("files")
    if not files:
        raise Problem(
            "invalid-request", "The multipart body has no field `files`, or it is cut short."
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
    # Some encodings give halves of characters, which no answer can hold.
    name = (file.filename or f"files[{number}]").encode("utf-8", "replace").decode()
    declared = _media_type(file.content_type)
    # Clients that do not know a file's ending say octet-stream: the decoder finds out.
    if declared in _UNKNOWN or _is_image_type(declared):
        return Upload(name, await file.read())
    return Upload(name, problem=_not_an_image_type(declared, "its type"))


def _is_image_type(declared: str) -> bool:
    return declared in IMAGE_TYPES or declared in _ALIASES


def _not_an_image_type(declared: str, where: str) -> Problem:
    said = f"{where} is {declared!r}" if declared else f"{where} is missing"
    return Problem(
        "unsupported-media-type",
        f"{said[0].upper()}{said[1:]}; send one of {', '.join(IMAGE_TYPES)}.",
        headers={"Accept": ", ".join(IMAGE_TYPES)},
    )


def _require_unpacked(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            "unsupported-media-type", "Send the body without Content-Encoding: images are packed."
        )


def _require_json(request: Request) -> None:
    _require_unpacked(request)
    declared = _media_type(request.headers.get("content-type"))
    if "inference-header-content-length" in request.headers:
        raise Problem(
            "unsupported-media-type", "The binary tensor extension is not offered; send JSON."
        )
    if declared != "application/json" and not declared.endswith("+json"):
        said = repr(declared) if declared else "missing"
        raise Problem("unsupported-media-type", f"Send application/json; Content-Type is {said}.")


def _media_type(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()[:100]
