"""An ASGI middleware that delivers error answers before the connection closes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_SECONDS, SILENCE_SECONDS = 2.0, 0.25
"""How long the rest of a rejected body is read: in total, and without a new byte."""
_FIRST_ERROR = 400


@dataclass
class Linger:
    """Briefly reads the rest of a rejected body before the connection is closed.

    Closing a connection with unread bytes resets it, and the client loses the answer. If the
    connection stays open, the server reads the rest of the body anyway.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        closes = scope["http_version"] == "1.0" or _asks_to_close(scope["headers"])
        is_whole, is_error = False, False

        async def receive_seen() -> Message:
            nonlocal is_whole
            message = await receive()
            is_whole = is_whole or not message.get("more_body", False)
            return message

        async def send_last(message: Message) -> None:
            nonlocal closes, is_error
            if message["type"] == "http.response.start":
                is_error = message["status"] >= _FIRST_ERROR
                closes = closes or _asks_to_close(message.get("headers", ()))
            elif is_error and closes and not is_whole and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _discard_rest(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self.app(scope, receive_seen, send_last)


def _asks_to_close(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        name.lower() == b"connection" and b"close" in value.lower() for name, value in headers
    )


async def _discard_rest(receive: Receive) -> None:
    """Read the rest of a body for a moment and discard it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await receive()
                if not message.get("more_body", False):
                    return
