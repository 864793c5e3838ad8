"""An ASGI middleware that limits request bodies: size, time, and memory used by all of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootstock.service.http.problems import Problem


@dataclass
class BodyLimit:
    """Raises a Problem for a body that is too long, too slow, or does not fit in memory.

    Bytes are counted as they arrive, so a missing or false Content-Length has no effect.
    """

    app: ASGIApp
    max_bytes: int
    max_buffered: int
    seconds: float
    buffered: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received, is_whole = 0, False
        deadline = time.monotonic() + self.seconds

        def require_fit(size: int) -> None:
            if size > self.max_bytes:
                # Closing the connection saves both sides the rest of the body.
                raise Problem(
                    "too-large",
                    f"The body is longer than {self.max_bytes:,} bytes, the service's "
                    "MAX_BODY_BYTES.",
                    headers={"Connection": "close"},
                )

        async def receive_counted() -> Message:
            nonlocal received, is_whole
            require_fit(_declared_length(scope))
            if is_whole:
                return await receive()  # wait until the client disconnects
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
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
            is_whole = not message.get("more_body", False)
            require_fit(received)
            if self.buffered > self.max_buffered:
                raise Problem(
                    "overloaded",
                    "Too many request bodies are in memory at the moment.",
                    headers={"Retry-After": "1", "Connection": "close"},
                )
            return message

        try:
            await self.app(scope, receive_counted, send)
        finally:
            self.buffered -= received


def _declared_length(scope: Scope) -> int:
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(values[0]) if values and values[0].isdigit() else 0
