"""ASGI middlewares around every request: who asks, how often, how much, and what it took."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import re
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootstock.service.http.keys import KeyRing, RateLimit, Role
from rootstock.service.http.problems import Problem, internal_problem, send_refusal
from rootstock.service.watch.logs import request_id
from rootstock.service.watch.telemetry import Telemetry

_log = logging.getLogger("rootstock.access")
_OPEN = ("/healthz", "/readyz", "/ping", "/metrics", "/v2/health/", "/docs", "/openapi.json")
LINGER_SECONDS, SILENCE_SECONDS = 2.0, 0.25
"""After an answer that refuses a body, what still comes of it is taken for so long."""
_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Of every answer, unless its route says otherwise; encoded once, for refusals must cost little."""


class Observer:
    """Gives every request an id, counts, times and logs it, and adds the security headers."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        shown = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        # A client's own id is kept only if it cannot break a log.
        identity = shown.decode() if _ID.fullmatch(shown) else os.urandom(16).hex()
        scope["state"] = scope.get("state", {}) | {"request_id": identity}
        token = request_id.set(identity)
        status, started = 500, time.perf_counter()
        began = ended = False

        async def noted(message: Message) -> None:
            nonlocal status, began, ended
            if message["type"] == "http.response.start":
                status, began = message["status"], True
                own = list(message.get("headers", ()))
                named = {name for name, _ in own}
                own += [header for header in _HEADERS if header[0] not in named]
                message["headers"] = [*own, (b"x-request-id", identity.encode())]
            else:
                ended = not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except asyncio.CancelledError:
            if began:
                raise
            # The service ends, and this request had longer than it waits for.
            await send_refusal(noted, scope, _ended())
        except Exception:
            _log.exception("a request failed")
            if not began:
                await send_refusal(noted, scope, internal_problem())
            elif not ended:
                raise  # what was sent cannot be taken back; the connection is closed
        finally:
            seconds = time.perf_counter() - started
            # The route, never the raw path: strangers would otherwise fill the memory.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if route != "other" else "other"
            self.telemetry.count_request(method, route, status, seconds)
            if kind := scope["state"].get("problem"):
                self.telemetry.count_problem(kind)
            # Under overload a line for each refusal would be work for nothing: metrics count.
            level = logging.DEBUG if status in (429, 503) else logging.INFO
            if _log.isEnabledFor(level) and not scope["path"].startswith(_OPEN):
                caller = scope["state"].get("caller", "")
                _log.log(
                    level,
                    "%s %s %d",
                    scope["method"],
                    route,
                    status,
                    extra={"caller": caller, "status": status, "ms": round(1000 * seconds, 2)},
                )
            request_id.reset(token)


class Guard:
    """Refuses, before a byte of the body is read, who may not ask, asks too often, or too late.

    ``crowded`` returns the problem of a service that has too much to do, or None.
    """

    def __init__(
        self, app: ASGIApp, keys: KeyRing, rate: RateLimit, crowded: Callable[[], Problem | None]
    ) -> None:
        self.app = app
        self.keys = keys
        self.rate = rate
        self.crowded = crowded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._refuse(scope) if scope["type"] == "http" else None
        if problem is None:
            await self.app(scope, receive, send)
        else:
            await send_refusal(send, scope, problem)

    def _refuse(self, scope: Scope) -> Problem | None:
        path = scope["path"]
        if is_open(path):
            return None
        role = role_for(path)
        caller = f"address {(scope.get('client') or ('unknown',))[0]}"
        if self.keys.needed(role):
            found = [self.keys.find(shown) for shown in _shown_keys(Headers(scope=scope))]
            # Of two keys the one that may do more
            key = min(filter(None, found), key=lambda key: key.role, default=None)
            if key is None:
                return _unauthorized(role, self.keys)
            if role == "admin" and key.role != "admin":
                return Problem("forbidden", f"The key {key.name!r} is not an admin's.")
            caller = f"key {key.name}"
        scope["state"]["caller"] = caller
        # An operator in trouble is not held up.
        if scope["method"] != "POST" or role == "admin":
            return None
        seconds = self.rate.wait(caller)
        if seconds:
            return Problem(
                "too-many-requests",
                "More requests than this service answers for one caller.",
                headers={"Retry-After": str(math.ceil(seconds))},
            )
        return self.crowded()


class BodyLimit:
    """A body that is too long, comes too slowly, or finds no room in memory ends in a Problem.

    Bytes are counted as they arrive, so a missing or false Content-Length changes nothing.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_buffered: int, seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_buffered = max_buffered
        self.seconds = seconds
        self.buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = _declared_length(scope)
        received, whole, cut = 0, False, False
        until = time.monotonic() + self.seconds

        def refused() -> Problem:
            nonlocal cut
            cut = True
            # Closing spares both sides the rest of the body.
            return Problem(
                "too-large",
                f"The body is longer than {self.max_bytes} bytes.",
                headers={"Connection": "close"},
            )

        async def counted() -> Message:
            nonlocal received, whole
            if declared > self.max_bytes:
                raise refused()
            if whole:
                return await receive()  # the client's leaving, whenever that is
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise Problem(
                    "too-slow",
                    f"The body did not arrive within {self.seconds:g} seconds.",
                    headers={"Connection": "close"},
                ) from None
            size = len(message.get("body", b""))
            received += size
            self.buffered += size
            whole = not message.get("more_body", False)
            if received > self.max_bytes:
                raise refused()
            if self.buffered > self.max_buffered:
                raise Problem(
                    "overloaded",
                    "The bodies of other requests fill the memory.",
                    headers={"Retry-After": "1", "Connection": "close"},
                )
            return message

        async def lingering(message: Message) -> None:
            if cut and message["type"] == "http.response.body" and not message.get("more_body"):
                # A connection that is closed over unread bytes takes the answer away with it.
                await send({**message, "more_body": True})
                await _drop(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            await self.app(scope, counted, lingering)
        finally:
            self.buffered -= received


async def _drop(receive: Receive) -> None:
    """Read on for a moment, and keep nothing."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await receive()
                if not message.get("more_body", False):
                    return


def _shown_keys(headers: Headers) -> list[str]:
    """What may be a key: an Authorization header may be meant for a proxy on the way."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    shown = [headers.get("x-api-key", "")]
    return [*shown, token.strip()] if scheme.lower() == "bearer" else shown


def is_open(path: str) -> bool:
    """Whether everybody may ask for this, with or without a key."""
    return path.startswith(_OPEN) or path == "/"


def role_for(path: str) -> Role:
    """Whose key it takes."""
    return "admin" if path.startswith("/admin/") else "predict"


def _ended() -> Problem:
    return Problem(
        "lost",
        "The service ended before this request did.",
        headers={"Retry-After": "1", "Connection": "close"},
    )


def _unauthorized(role: Role, keys: KeyRing) -> Problem:
    detail = "Send the key as X-API-Key or Authorization: Bearer."
    if role == "admin" and not keys.has("admin"):
        return Problem("forbidden", "This service has no admin key, so nobody may do that.")
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def _declared_length(scope: Scope) -> int:
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(values[0]) if values and values[0].isdigit() else 0
