"""Connections that never say what they want are cut off: uvicorn itself waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

LONGEST_HEADER = 65_536
"""Bytes of a header, its address included."""


def impatient_protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which closes a connection whose header is too late or too long.

    The time begins with the connection, and with the first byte of each further request; between
    two requests uvicorn's own keep-alive holds.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Impatient(HttpToolsProtocol):
        _alarm: asyncio.TimerHandle | None = None
        _header_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_header()

        def data_received(self, data: bytes) -> None:
            in_header = self._alarm is not None
            super().data_received(data)
            if in_header and self._alarm is not None:
                self._header_bytes += len(data)
                if self._header_bytes > LONGEST_HEADER:
                    self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._alarm is None:
                self._await_header()

        def on_headers_complete(self) -> None:
            self._disarm()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _await_header(self) -> None:
            self._header_bytes = 0
            self._alarm = self.loop.call_later(seconds, self.transport.close)

        def _disarm(self) -> None:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None

    return Impatient
