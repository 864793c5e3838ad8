"""Python client of a Rootstock service, with typed answers.

    from rootstock.client import Client

    with Client("http://127.0.0.1:8000") as client:
        for answer in client.predict(["a.jpg", "b.jpg"]):
            print(answer.filename, answer.label, answer.probability, answer.unknown)

Needs httpx, the extra `client`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from rootstock.errors import RootstockError
from rootstock.tasks import answer_type
from rootstock.tasks.answer import Answer

BATCH, BATCH_BYTES = 16, 32 * 2**20
"""Maximum images, and bytes, in one request; a larger image has its own request."""
_LONGEST_PAUSE = 30.0
FIRST_TASK = "single_label"
"""The task of a service that does not name one."""


class ServiceError(RootstockError):
    """The service refused; ``kind`` is the last word of the problem type, such as overloaded.

    ``reason`` says what is wrong with the image, if one image was sent.
    """

    code = "service"

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        kind: str = "",
        reason: str = "",
        entries: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.reason = reason
        self.entries = [{"filename": entry["filename"], "error": entry} for entry in entries]


Image = Path | str | bytes


class Client:
    """A persistent connection. Close it, or use it as a context manager.

    Args:
        url: the address of the service, for example http://127.0.0.1:8000.
        key: an API key, if the service requires one.
        timeout: seconds per request.
        retries: how often a request is sent again after an answer 429 or 503 or a broken
            connection. The pause is the one that the service asks for.

    Raises:
        ServiceError: the address or the key is not valid.
    """

    def __init__(self, url: str, *, key: str = "", timeout: float = 30.0, retries: int = 3) -> None:
        key = key.strip()
        if not (key.isascii() and key.isprintable()):
            # httpx would show the key in its error.
            raise ServiceError("API key contains invalid characters")
        headers = {"X-API-Key": key} if key else {}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise ServiceError(f"{url} is not a valid service URL: {error}") from None
        self._retries = retries
        self._task = ""

    def predict(
        self,
        images: Sequence[Image],
        *,
        top_k: int | None = None,
        coverage: float | None = None,
        explain: bool = False,
        neighbours: int | None = None,
    ) -> list[Answer]:
        """Return one answer for each image (a path, or encoded bytes), in order.

        The answer for an unusable image has an ``error``. ``explain`` adds ``heat_maps``, and
        ``neighbours`` the names of this many similar training images.
        Raises:
            ServiceError: the service cannot be reached or refuses the request as a whole.
            OSError: a path cannot be read.
            TypeError: ``images`` is one image instead of a list.
        """
        given = {
            "top_k": top_k,
            "coverage": coverage,
            "explain": explain or None,
            "neighbours": neighbours,
        }
        params = {name: value for name, value in given.items() if value is not None}
        entries = list(self._ask_all("predict", "predictions", images, params))
        return [self._answer_type.from_json(entry) for entry in entries]

    def embeddings(self, images: Sequence[Image]) -> list[list[float] | None]:
        """Return the features of each image; None for an unusable image.

        Raises:
            ServiceError, OSError, TypeError: as for `predict`.
        """
        return [
            entry.get("embedding")
            for entry in self._ask_all("embeddings", "embeddings", images, {})
        ]

    def model(self) -> dict[str, Any]:
        """Return the answer of /v1/model: classes, metrics, lineage, version.

        Raises:
            ServiceError: as for `predict`.
        """
        return self._send("GET", "/v1/model")

    def feedback(self, request_id: str, label: str, *, sha256: str = "") -> dict[str, Any]:
        """Report the true label of an image; return the judgement that was stored.

        ``request_id`` is the header X-Request-ID of the answer; ``sha256`` is the hash of the
        image file, if the request had several images.
        Raises:
            ServiceError: as for `predict`; ``kind`` is not-found for an id that is not in the
            journal.
        """
        body = {"request_id": request_id, "label": label, "sha256": sha256}
        return self._send("POST", "/v1/feedback", json=body)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask_all(
        self, route: str, member: str, images: Sequence[Image], params: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        if isinstance(images, str | bytes | Path):
            raise TypeError("images must be a list; write [image] for one image")
        for files in _batches(images):
            try:
                found = self._send("POST", f"/v1/{route}", files=files, params=params)
            except ServiceError as error:
                if error.kind not in ("unusable-image", "unsupported-media-type"):
                    raise
                # No image of this request is usable, so the answer has no list of them.
                names = [name for _, (name, _, _) in files]
                yield from error.entries or [_alone(name, error) for name in names]
            else:
                self._task = found["model"].get("task", FIRST_TASK)
                yield from found[member]

    @property
    def _answer_type(self) -> type[Answer]:
        """The type of the service's answers; asked of the service if no answer has named it."""
        if not self._task:
            self._task = self.model().get("task", FIRST_TASK)
        return answer_type(self._task)

    def _send(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        for attempt in range(self._retries + 1):
            try:
                response = self._http.request(method, path, **content)
            except (httpx.TransportError, httpx.DecodingError) as error:
                if attempt == self._retries:
                    raise ServiceError(
                        f"{self._http.base_url} cannot be reached: {error or type(error).__name__}"
                    ) from None
                time.sleep(min(2.0**attempt / 4, _LONGEST_PAUSE))
                continue
            if response.status_code not in (429, 503) or attempt == self._retries:
                break
            pause = response.headers.get("Retry-After", "1")
            time.sleep(min(float(pause) if pause.isdigit() else 1.0, _LONGEST_PAUSE))
        if not response.is_success:
            raise _problem(response)
        found = _json(response)
        if not found:
            raise ServiceError(
                f"{response.url} is not a Rootstock service; check the address",
                status=response.status_code,
            )
        return found


_File = tuple[str, tuple[str, bytes, str]]


def _batches(images: Iterable[Image]) -> Iterator[list[_File]]:
    """Yield batches that fit in one request."""
    batch: list[_File] = []
    size = 0
    for number, image in enumerate(images):
        name, content = _file(number, image)
        if batch and (len(batch) == BATCH or size + len(content) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        # The service detects the format; the suffix of a name may be wrong.
        batch.append(("files", (name, content, "application/octet-stream")))
        size += len(content)
    if batch:
        yield batch


def _file(number: int, image: Image) -> tuple[str, bytes]:
    if isinstance(image, bytes):
        return f"image-{number}", image
    # A name may contain bytes that are not text.
    name = Path(image).name.encode("utf-8", "replace").decode()
    return name, Path(image).read_bytes()


def _alone(name: str, error: ServiceError) -> dict[str, Any]:
    return {"filename": name, "error": {"detail": error.message, "reason": error.reason}}


def _json(response: httpx.Response) -> dict[str, Any]:
    """Return the answer as an object; empty if it is not one, such as a proxy's error page."""
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _problem(response: httpx.Response) -> ServiceError:
    body = _json(response)
    kind = str(body.get("type", "")).rpartition(":")[2]
    detail = body.get("detail") or f"HTTP {response.status_code}"
    entries = body.get("errors", []) if kind != "invalid-request" else []
    return ServiceError(
        str(detail),
        status=response.status_code,
        kind=kind,
        reason=str(body.get("reason", "")),
        entries=entries,
    )
