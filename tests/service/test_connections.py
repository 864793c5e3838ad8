"""Connections over raw sockets: slow, silent, and greedy clients, and shutdown."""

import collections
import contextlib
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.bundles import jpeg, tiny_bundle
from tests.service.requests import wait_for
from tests.service.test_serve import HEAD, address_of, drain, read_all, running, start, wire

pytestmark = pytest.mark.integration
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST /v1/predict HTTP/1.1\r\nhost: a\r\n"


def resident(process):
    """Return the peak kilobytes of the process so far."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])


def seconds_until_closed(connection, drip=b"", pause=0.2):
    """Send ``drip`` repeatedly, and return when the other side has closed the connection."""
    began = time.monotonic()
    connection.settimeout(pause)
    while time.monotonic() - began < 40:
        with contextlib.suppress(TimeoutError):
            try:
                if drip:
                    connection.sendall(drip)
                if connection.recv(65_536) == b"":
                    return time.monotonic() - began
            except ConnectionError:
                return time.monotonic() - began
    raise AssertionError("it was never closed")


@pytest.fixture(scope="module")
def hasty():
    """A service with short time limits."""
    with running("--model", str(tiny_bundle()), ROOTSTOCK_HEADER_SECONDS="1",
                 ROOTSTOCK_BODY_SECONDS="1") as service:  # fmt: skip
        yield service


@pytest.mark.parametrize(
    ("head", "drip"),
    [
        (b"", b""),
        (b"GET /healthz HTTP/1.1\r\nx: ", b"a"),
        (b"", b"\r\n"),
        (POST + b"content-length: 100000\r\n\r\n", b"a"),
        (b"POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n", b"a"),
        (POST + b"transfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    ],
    ids=["silent", "header", "blank lines", "body", "body after its answer", "chunks"],
)
def test_client_that_drips_is_cut_in_every_phase(hasty, head, drip):
    with wire(hasty[0]) as connection:
        connection.sendall(head)
        assert seconds_until_closed(connection, drip) < 12


def test_a_client_that_does_not_read_is_cut(hasty):
    address, process = hasty
    with wire(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(30)
        try:
            for _ in range(3_000):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n")
                time.sleep(0.01)
        except ConnectionError:
            pass
        else:
            raise AssertionError("it was never cut")
    assert httpx.get(f"{address}/healthz").status_code == 200


@pytest.mark.parametrize("kind", ["trailers", "one trailer", "extension", "pipelined"])
def test_what_belongs_to_no_body_takes_no_memory(hasty, kind):
    address, process = hasty
    start_of = {
        "trailers": (POST + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
        "one trailer": (POST + b"transfer-encoding: chunked\r\n\r\n0\r\na: ", b"b"),
        "extension": (POST + b"transfer-encoding: chunked\r\n\r\n1;", b"b"),
        "pipelined": (b"", HEALTH),
    }
    head, part = start_of[kind]
    httpx.get(f"{address}/healthz")
    before = resident(process)
    piece = part * (2**16 // len(part))
    with wire(address) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head)
        for _ in range(300):
            connection.sendall(piece)
    assert resident(process) - before < 40_000
    assert httpx.get(f"{address}/healthz").status_code == 200


def test_pipelined_requests_are_answered_in_order(hasty):
    with wire(hasty[0]) as connection:
        connection.sendall(HEALTH * 10 + HEALTH.replace(b"host", b"connection: close\r\nhost"))
        assert read_all(connection).count(b'{"status":"ok"}') == 11


def test_others_are_answered_while_one_holds_all_connections():
    body = jpeg(0)
    limits = {"ROOTSTOCK_MAX_CONNECTIONS": "60", "ROOTSTOCK_MAX_CONNECTIONS_PER_ADDRESS": "50"}
    with running("--model", str(tiny_bundle()), **limits) as (address, process):
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(wire(address)) for _ in range(200)]
            for connection in held:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(HEAD + b"content-length: 100000\r\n\r\na")
            time.sleep(0.5)
            files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            for _ in range(20):
                answer = httpx.post(f"{address}/v1/predict", content=body, timeout=10)
                assert answer.status_code == 200
        assert files < 60 + 40


def test_a_service_that_ends_loses_no_request():
    """Requests on old and new connections are answered, or refused before they are sent."""
    process = start("--model", str(tiny_bundle()))
    address = address_of(process)
    drain(process)
    seen, lock = collections.Counter(), threading.Lock()

    def ask(is_kept):
        client = httpx.Client(base_url=address, timeout=20, verify=False)
        while True:
            try:
                client.post("/v1/predict", content=jpeg(0)).raise_for_status()
                what = "answered"
            except httpx.ConnectError:
                what = "refused"
            except httpx.HTTPError as error:
                what = repr(error)
            with lock:
                seen[what] += 1
            if what != "answered":
                return
            if not is_kept:
                client.close()
                client = httpx.Client(base_url=address, timeout=20, verify=False)

    askers = [threading.Thread(target=ask, args=(number % 2,)) for number in range(8)]
    for asker in askers:
        asker.start()
    wait_for(lambda: seen["answered"] > 50, seconds=60)
    process.send_signal(signal.SIGTERM)
    for asker in askers:
        asker.join(30)
    assert process.wait(20) == 0
    assert set(seen) == {"answered", "refused"}, seen
