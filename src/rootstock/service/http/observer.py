"""The outermost ASGI middleware: request ids, counts, durations, and log lines."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootstock.service.http.access import AccessTable
from rootstock.service.http.problems import Problem, internal_problem, send_refusal
from rootstock.service.watch.logs import current_trace_id, request_id
from rootstock.service.watch.telemetry import Telemetry

_log = logging.getLogger("rootstock.access")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Added to every answer that does not set them; encoded once to keep rejections cheap."""


@dataclass
class Observer:
    """Gives every request an id; counts, times, and logs it; adds the security headers."""

    app: ASGIApp
    access: AccessTable
    telemetry: Telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        identity = _read_id(scope)
        scope["state"] = scope.get("state", {}) | {"request_id": identity}
        token = request_id.set(identity)
        status, started = 500, time.perf_counter()
        has_begun = has_ended = False

        async def send_observed(message: Message) -> None:
            nonlocal status, has_begun, has_ended
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                # FastAPI's span ends before this request is logged.
                scope["state"]["trace_id"] = current_trace_id()
                headers = list(message.get("headers", ()))
                names = {name for name, _ in headers}
                headers += [header for header in _SECURITY_HEADERS if header[0] not in names]
                message["headers"] = [*headers, (b"x-request-id", identity.encode())]
            else:
                has_ended = not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive, send_observed)
        except asyncio.CancelledError:
            if has_begun:
                raise
            # The service is shutting down, and the time for this request has run out.
            await send_refusal(send_observed, scope, _shutdown_problem())
        except Exception:
            _log.exception("a request failed")
            if not has_begun:
                await send_refusal(send_observed, scope, internal_problem())
            elif not has_ended:
                raise  # the answer has already begun; the connection is closed
        finally:
            self._record(scope, status, time.perf_counter() - started)
            request_id.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The route, not the raw path: arbitrary paths could fill the memory.
        route = getattr(scope.get("route"), "path", "") or scope["state"].get("refused_route")
        route = route or "other"
        method = scope["method"] if route != "other" else "other"
        model = scope["state"].get("model", "")
        self.telemetry.count_request(method, route, status, seconds, model)
        if kind := scope["state"].get("problem"):
            self.telemetry.count_problem(kind)
        # Under overload, a log line per rejection costs too much; metrics count them.
        level = logging.DEBUG if status in (429, 503) else logging.INFO
        if _log.isEnabledFor(level) and not self._is_routine(scope["path"]):
            state = scope["state"]
            extra = {"caller": state.get("caller", ""), "status": status}
            if state.get("trace_id"):
                extra["trace_id"] = state["trace_id"]
            _log.log(
                level,
                "%s %s %d",
                scope["method"],
                route,
                status,
                extra=extra | {"ms": round(1000 * seconds, 2)},
            )

    def _is_routine(self, path: str) -> bool:
        """Return whether a request is too frequent to log: health checks and scrapes."""
        return self.access.resolve(path) == "open" and path != "/"


def _read_id(scope: Scope) -> str:
    """Return the id of a request."""
    return choose_id(
        next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    )


def choose_id(given: bytes) -> str:
    """Return the id that a client gave if it cannot break a log, otherwise a new one."""
    return given.decode() if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


def _shutdown_problem() -> Problem:
    return Problem(
        "lost",
        "The service shut down before answering this request.",
        headers={"Retry-After": "1", "Connection": "close"},
    )
