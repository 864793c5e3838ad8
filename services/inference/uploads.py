"""From a request to the images in it, never reading more than the limit."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


@dataclass(frozen=True)
class Upload:
    """One file of a request: its bytes, or the problem with its declared type."""

    filename: str
    content: bytes = b""
    problem: Problem | None = None


class BodyLimit:
    """ASGI middleware: a body longer than ``max_bytes`` ends in Problem "too-large".

    Bytes are counted as they arrive, so a missing or false Content-Length changes nothing.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = _declared_length(scope)
        received = 0

        async def counted() -> Message:
            nonlocal received
            if declared > self.max_bytes:
                raise self._problem()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise self._problem()
            return message

        await self.app(scope, counted, send)

    def _problem(self) -> Problem:
        # Closing spares both sides the rest of the body.
        return Problem(
            "too-large",
            f"The body is longer than {self.max_bytes} bytes.",
            headers={"Connection": "close"},
        )


async def read_uploads(request: Request, *, max_images: int) -> list[Upload]:
    """The images of a request: multipart field `files`, or the body itself.

    Raises:
        Problem: no file, too many files, a body that is no multipart, or no image type.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            "unsupported-media-type", "Send the body without Content-Encoding: images are packed."
        )
    declared = _media_type(request.headers.get("content-type"))
    if declared == "multipart/form-data":
        return await _read_form(request, max_images)
    if not _is_image_type(declared):
        raise _not_an_image_type(declared, "Content-Type")
    return [Upload("body", await request.body())]


async def _read_form(request: Request, max_images: int) -> list[Upload]:
    async with request.form(max_files=max_images, max_fields=16) as form:
        files = form.getlist("files")
        if not files:
            raise Problem("invalid-request", "The multipart body has no field `files`.")
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


def _declared_length(scope: Scope) -> int:
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(values[0]) if values and values[0].isdigit() else 0
