"""A time limit on request headers: uvicorn would wait for them forever."""

from __future__ import annotations

import asyncio
from typing import Any

MAX_HEADER_BYTES = 65_536
"""Length of a header with its request line."""


def header_timeout_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, changed to close connections whose header is too late or too long.

    The time starts with the connection, and with the first byte of each further request. Between
    two requests, uvicorn's keep-alive timeout applies.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class HeaderTimeoutProtocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _header_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_header()

        def data_received(self, data: bytes) -> None:
            in_header = self._timer is not None
            super().data_received(data)
            if in_header and self._timer is not None:
                self._header_bytes += len(data)
                if self._header_bytes > MAX_HEADER_BYTES:
                    self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._timer is None:
                self._await_header()

        def on_headers_complete(self) -> None:
            self._stop_timer()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _await_header(self) -> None:
            self._header_bytes = 0
            self._timer = self.loop.call_later(seconds, self.transport.close)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return HeaderTimeoutProtocol
