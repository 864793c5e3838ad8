"""Connections that never say what they want are cut off: uvicorn itself waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

LONGEST_HEADER = 65_536
"""Bytes of a header, its address included."""


def impatient_protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which closes a connection whose next header is too late or too long.

    The time begins with the connection, and again with the first byte after an answer; between
    two requests uvicorn's own keep-alive holds.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Impatient(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
        _alarm: asyncio.TimerHandle | None = None
        _waiting_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._alarm = self.loop.call_later(seconds, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._disarm()
                return
            self._waiting_bytes += len(data)
            if self._waiting_bytes > LONGEST_HEADER:
                self.transport.close()
            elif self._alarm is None and not self.transport.is_closing():
                self._alarm = self.loop.call_later(seconds, self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _disarm(self) -> None:
            self._waiting_bytes = 0
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None

    return Impatient
