"""From a request to the images in it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile

from services.inference.problems import Problem

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


class JsonImages(BaseModel):
    """The JSON body: image files in base64. Addresses are not fetched."""

    images: list[str] = Field(fail_fast=True, min_length=1)


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
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            "unsupported-media-type", "Send the body without Content-Encoding: images are packed."
        )
    declared = _media_type(request.headers.get("content-type"))
    if declared == "multipart/form-data":
        return await _read_form(request, max_images)
    if declared == "application/json":
        return _read_json(await request.body(), max_images)
    if not _is_image_type(declared):
        raise _not_an_image_type(declared, "Content-Type")
    return [Upload("body", await request.body())]


def require_few(body: bytes, most: int) -> None:
    """Count a JSON body's elements before anything is made of them: a million cost gigabytes.

    Raises:
        Problem: more than ``most``.
    """
    found = 0
    for start in range(0, len(body), _PIECE):
        found += body.count(b",", start, start + _PIECE)
        if found > most:
            raise Problem("invalid-request", f"The body has more than {most} elements.")


def elements(max_images: int) -> int:
    """How many elements a JSON body of so many images may have."""
    return _BESIDES + _PER_IMAGE * max_images


def bounded_route(most: int) -> type[APIRoute]:
    """Routes whose JSON body is counted before it is parsed."""

    class Bounded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def counted(request: Request) -> Response:
                if request.method == "POST":
                    require_few(await request.body(), most)
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
    require_few(body, elements(max_images))
    try:
        images = JsonImages.model_validate_json(body).images
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise Problem("invalid-request", f"{where}: {first['msg']}") from None
    contents = decode_base64(images, "images", max_images)
    return [Upload(f"images[{number}]", content) for number, content in enumerate(contents)]


async def _read_form(request: Request, max_images: int) -> list[Upload]:
    # One more is read, so that too many are told in our words.
    async with request.form(max_files=max_images + 1, max_fields=16) as form:
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
    name = file.filename or f"files[{number}]"
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


def _media_type(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()[:100]
