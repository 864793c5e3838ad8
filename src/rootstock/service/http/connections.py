"""Connections with time limits and bounds, closed at shutdown without losing a request.

uvicorn waits forever for a header, for the rest of a body that it has already answered, and for a
client that does not read. It keeps every trailer, and its queue of pipelined requests has no
limit.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import resource
import socket
import struct
import sys
import termios
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 65_536
"""Bytes of a header with its request line, or of trailers and other parts around a body."""
MAX_PIPELINED = 16
"""Requests that wait while an earlier one is answered; further requests are not read."""
CLOSE_SECONDS = 5.0
"""Time that a closing connection gives the client to read its last answer."""
ANSWER_SECONDS = 5.0
"""Time from the body's limit to closing the connection, so that an answer can explain why."""
IDLE_SECONDS = 30.0
"""Time between two requests on one connection."""
OTHER_FILES = 256
"""Files that the service needs in addition to connections: decoders, models, the registry."""
_SWEEP_SECONDS = 0.25
_SO_ATTACH_FILTER = 26


@dataclass
class ConnectionLimits:
    """Limits that all connections of a service share.

    Args:
        header_seconds, body_seconds: time limits for the parts of a request; ``body_seconds`` also
            limits how long a client takes to read its answer.
        most, most_per_address: connections at once, in total and per address.
        draining: whether the service is shutting down, so each answer is the connection's last.
    """

    header_seconds: float
    body_seconds: float
    most: int
    most_per_address: int
    draining: Callable[[], bool] = lambda: False
    open: set[Connection] = field(default_factory=set)
    by_address: Counter[str] = field(default_factory=Counter)
    _sweeper: asyncio.TimerHandle | None = None

    def admit(self, connection: Connection) -> bool:
        """Add a connection. If there are too many, close the one that has been idle longest.

        Return whether it fits: connections that are waiting for an answer are not closed.
        """
        self.open.add(connection)
        self.by_address[connection.address] += 1
        if self.by_address[connection.address] > self.most_per_address:
            group = {one for one in self.open if one.address == connection.address}
        elif len(self.open) > self.most:
            group = self.open
        else:
            group = {connection}
        if len(group) > 1:
            waiting = [one for one in group if one is not connection and one.waits]
            if not waiting:
                return False
            min(waiting, key=lambda one: one.rank).transport.close()
        if self._sweeper is None:
            self._sweep_later(connection.loop)
        return True

    def remove(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self.open.remove(connection)
        self.by_address[connection.address] -= 1
        self.by_address += Counter()  # removes addresses without connections

    def _sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self.open):
            connection.check(now)
        self._sweeper = None
        if self.open:
            self._sweep_later(loop)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with `ConnectionLimits`."""

    limits: ConnectionLimits
    address = ""
    _phase, _since = "header", 0.0
    _blocked_since = _closing_since = 0.0
    _quiet_bytes = 0
    """Bytes since the header began, or since the last byte of a body."""
    _is_overrun = False
    """Whether too many requests are waiting, so that no further one is read."""

    @property
    def waits(self) -> bool:
        """Whether the service is waiting for the client."""
        return self._phase != "answer" or bool(self._closing_since or self._blocked_since)

    @property
    def rank(self) -> tuple[bool, float]:
        """The order in which connections are closed when there are too many."""
        return self._phase != "idle", self._since

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = str(self.client[0]) if self.client else ""
        self._enter("header")
        if not self.limits.admit(self):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_overrun:
            return
        self._quiet_bytes += len(data)
        super().data_received(data)
        if self._phase in ("header", "body") and self._quiet_bytes > MAX_HEADER_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._phase != "header":  # the first header begins with the connection
            self._enter("header")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase == "header":  # later bytes are a trailer, which no route reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_overrun = len(self.pipeline) >= MAX_PIPELINED
        if self._is_overrun:
            self.cycle.keep_alive = False
            self._enter("answer")
            return
        super().on_headers_complete()
        self._enter("body")
        if self.limits.draining():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._quiet_bytes = 0
        if not self._is_overrun:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_overrun:
            return
        super().on_message_complete()
        self._enter("idle" if self.cycle.response_complete else "answer")

    def on_response_complete(self) -> None:
        if self._is_overrun and not self.pipeline:
            self.transport.close()
        super().on_response_complete()
        if self._phase == "answer" and self.cycle.response_complete:
            self._enter("idle")

    def pause_writing(self) -> None:
        self._blocked_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._blocked_since = 0.0
        super().resume_writing()

    def shutdown(self) -> None:
        """Close an idle connection, unless its next request has just arrived."""
        if self._phase != "idle" or not _has_unread(self.transport):
            super().shutdown()

    def check(self, now: float) -> None:
        """Close the connection if its client is too slow."""
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
            if now > self._closing_since + CLOSE_SECONDS:
                self.transport.abort()
            return
        limits = self.limits
        seconds = {
            "header": limits.header_seconds,
            "body": limits.body_seconds + ANSWER_SECONDS,
            "idle": IDLE_SECONDS,
        }.get(self._phase)
        if self._blocked_since and now > self._blocked_since + limits.body_seconds:
            self.transport.abort()
        elif seconds is not None and now > self._since + seconds:
            self.transport.close()

    def _enter(self, phase: str) -> None:
        self._phase, self._since, self._quiet_bytes = phase, self.loop.time(), 0


def make_protocol(limits: ConnectionLimits) -> type[Connection]:
    """Return a class of connections that share ``limits``."""
    return type("Connection", (Connection,), {"limits": limits})


def allow_connections(most: int) -> int:
    """Raise this process's limit of open files; return how many connections it then allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + OTHER_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(most, max(soft - OTHER_FILES, MAX_PIPELINED))


def _has_unread(transport: asyncio.Transport) -> bool:
    file = transport.get_extra_info("socket").fileno()
    if file < 0:
        return False
    return bool(struct.unpack("i", fcntl.ioctl(file, termios.FIONREAD, b"\0" * 4))[0])


def refuse_handshakes(listener: Any) -> bool:
    """Make a listening socket drop new connections but keep existing ones; Linux only.

    Return whether this works. Closing the socket at once would reset connections that are open
    but not accepted yet, and lose their requests. A client whose connection is dropped retries
    after a second and is then refused.
    """
    if sys.platform != "linux":
        return False
    # Drop packets with SYN and without ACK: load the flags, mask, compare, return.
    steps = [(0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0),
             (0x06, 0, 0, 0xFFFFFFFF)]  # fmt: skip
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    head = struct.pack("HP", len(steps), ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
    except OSError:
        return False
    return True
