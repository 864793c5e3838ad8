"""Start and end the service, for `rootstock serve` and `python -m rootstock.service`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import errno
import logging
import os
import signal
import socket
import sys
import textwrap
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rootstock.errors import ConfigError, RootstockError
from rootstock.service.settings import Settings
from rootstock.service.watch.logs import set_up_logs
from rootstock.service.watch.tracing import set_up_tracing
from rootstock.system.escape import escape_lines
from rootstock.system.malloc import SERVICE_BYTES, keep_freed_memory

if TYPE_CHECKING:
    import uvicorn

    from rootstock.service.inference.resources import Resources

_log = logging.getLogger("rootstock.service")
_OTHER_VARIABLES = ("ROOTSTOCK_CORES", "ROOTSTOCK_STUDIO_")
"""Prefixes of variables that other parts of the project read."""
IDLE_SECONDS = 0.5
"""Time between refusing new connections and closing those without a request."""


def serve(**options: Any) -> int:
    """Serve until SIGTERM or Ctrl-C, then let running requests finish; return 0.

    The ``options`` are settings and override the ROOTSTOCK_* variables.
    Raises:
        ConfigError: A setting is wrong, needs a package that is not installed, or names a port
            that is taken.
        BundleError: `model` is a directory that cannot be used. A registry without a model is not
            an error: the service starts, answers 503, and waits for a model.
        SystemExit: 0 after SIGTERM.
    """
    import uvicorn

    from rootstock.service.http.app import check_registry, create_app, make_holder
    from rootstock.service.http.connections import (
        ConnectionLimits,
        allow_connections,
        make_protocol,
    )
    from rootstock.service.models.source import read_models

    keep_freed_memory(SERVICE_BYTES)
    settings = _read_settings(**options)
    set_up_logs(settings.log_format)
    set_up_tracing()
    require_port(settings.host, settings.port)
    if settings.grpc_port is not None:
        require_port(settings.host, settings.grpc_port, "--grpc-port 8002")
    holder = None if settings.models else make_holder(settings)
    if holder is not None and holder.source.directory is not None:
        holder.load()
    elif holder is not None or "models:" in "".join(read_models(settings.models).values()):
        check_registry(settings.root)
    app = create_app(settings, holder=holder)
    resources: Resources = app.state.services.resources
    limits = ConnectionLimits(
        header_seconds=settings.header_seconds,
        body_seconds=settings.body_seconds,
        most=allow_connections(settings.max_connections),
        most_per_address=settings.max_connections_per_address,
        draining=lambda: resources.draining,
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
        timeout_keep_alive=30,
        http=make_protocol(limits),
        ws="none",
        # Any client can send X-Forwarded-For, so it counts only from configured proxies.
        proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
    )
    # uvicorn sends itself the signal again at the end, which is not a failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if getattr(signal, "SIGHUP", None) and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        # Closing a terminal must not end running requests.
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with contextlib.suppress(KeyboardInterrupt):
        _make_server(config, resources, settings.linger_seconds).run()
    return 0


def _make_server(
    config: uvicorn.Config, resources: Resources, linger_seconds: float
) -> uvicorn.Server:
    import uvicorn

    from rootstock.service.http.connections import refuse_handshakes

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """After SIGTERM, be not ready for a while, so that a load balancer looks elsewhere."""
            linger = 0.0 if resources.draining else linger_seconds
            resources.draining = True
            if sig == signal.SIGTERM and linger:
                timer = threading.Timer(linger, super().handle_exit, (sig, frame))
                timer.daemon = True
                timer.start()
            else:
                super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """Refuse new connections first; a moment later, close those without a request.

            A client that is refused connects elsewhere. If a connection closed just as a request
            arrived, the request would be lost. Every answer sent now ends its connection.
            """
            listeners = [one for server in self.servers for one in server.sockets]
            refusals = [refuse_handshakes(listener) for listener in listeners]
            if not all(refusals):
                for server in self.servers:
                    server.close()
            if not self.force_exit:
                await asyncio.sleep(IDLE_SECONDS)
            resources.closing.set()
            await super().shutdown(sockets)

    return Server(config)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the arguments, which override ROOTSTOCK_*, and serve. Known errors exit with 1."""
    parser = argparse.ArgumentParser(
        prog="python -m rootstock.service",
        description="Serve a model over HTTP.",
        epilog=_list_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("host", "port", "grpc_port", "model", "models", "root"):
        text = Settings.model_fields[name].description
        parser.add_argument(f"--{name.replace('_', '-')}", help=text, default=argparse.SUPPRESS)
    options = vars(parser.parse_args(argv))
    try:
        serve(**options)
    except RootstockError as error:
        sys.exit(f"error: {escape_lines(str(error))}")


def _list_settings() -> str:
    """Return a text with every setting, for `--help`."""
    lines = ["All settings, as variables:"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        value = "" if default in (None, "") else f" [{default}]"
        text = textwrap.wrap(f"{field.description}{value}", 76)
        lines += [f"  ROOTSTOCK_{name.upper()}", *(f"      {line}" for line in text)]
    return "\n".join(lines)


def _read_settings(**options: Any) -> Settings:
    _check_environment()
    try:
        return Settings(**options)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}, got {item['input']!r}"
            for item in error.errors()
        )
        raise ConfigError(
            f"invalid service settings: {problems}",
            hint="set them as arguments of `rootstock serve` or variables such as ROOTSTOCK_PORT",
        ) from None


def require_port(host: str, port: int, example: str = "--port 8001") -> None:
    """Check before a model is loaded that the service can listen.

    Raises:
        ConfigError: The port is taken or not allowed, or this machine has no such address.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"the service cannot listen on {host}, port {port}: {reason}",
            hint=f"end the other program, or choose another port: {example} (0: any free one)"
            if error.errno == errno.EADDRINUSE
            else "choose another --port or --host",
        ) from None


def _check_environment() -> None:
    """Reject misspelt settings: ROOTSTOCK_KEY instead of _KEYS would let every client in."""
    fields = list(Settings.model_fields)
    for variable in os.environ:
        name = variable.removeprefix("ROOTSTOCK_").lower()
        if name == variable.lower() or name in fields or variable.startswith(_OTHER_VARIABLES):
            continue
        similar = ["keys"] if "key" in name else difflib.get_close_matches(name, fields, 1, 0.75)
        similar = similar or [field for field in fields if _is_shortened(name, field)]
        if similar:
            raise ConfigError(
                f"unknown setting {variable}",
                hint=f"did you mean ROOTSTOCK_{similar[0].upper()}?",
            )
        _log.warning("unknown setting %s is ignored", variable)
    if not os.environ.get("ROOTSTOCK_KEYS", "unset").strip():
        raise ConfigError(
            "ROOTSTOCK_KEYS is empty",
            hint="set it to a key file, or unset it to serve without keys",
        )


def _is_shortened(name: str, field: str) -> bool:
    """Return whether one of them starts with the other, word by word."""
    words, others = name.split("_"), field.split("_")
    return all(word == other for word, other in zip(words, others, strict=False))
