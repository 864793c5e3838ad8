"""Start and end the service: what `rootstock serve` and `python -m rootstock.service` call."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import logging
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rootstock.errors import ConfigError, RootstockError
from rootstock.integrations.connect import quiet_environment
from rootstock.service.settings import Settings
from rootstock.service.watch.logs import set_up_logs
from rootstock.service.watch.tracing import set_up_tracing
from rootstock.system.malloc import LITTLE, keep_freed_memory

if TYPE_CHECKING:
    import socket

    import uvicorn

    from rootstock.service.inference.service import Service

_log = logging.getLogger("rootstock.service")
_OF_OTHERS = ("ROOTSTOCK_CORES",)
"""Variables that other parts of the project read."""
LAST_CALL_SECONDS = 0.5
"""From the end of listening to the end of connections that have asked nothing."""


def serve(settings: Settings | None = None, **chosen: Any) -> int:
    """Serve until SIGTERM or Ctrl-C, then let running requests finish; returns 0.

    ``chosen`` settings go over the ROOTSTOCK_* variables. Raises:
        ConfigError: a setting is wrong.
        BundleError: `model` is a directory that cannot be used. A registry without a model
            is no error: the service starts, answers 503, and waits for one.
        SystemExit: 0 after SIGTERM, 3 if the port is taken.
    """
    import uvicorn

    from rootstock.service.http.app import create_app, make_holder
    from rootstock.service.http.header_timeout import impatient_protocol

    keep_freed_memory(LITTLE)
    settings = settings or _read_settings(**chosen)
    set_up_logs(settings.log_format)
    set_up_tracing()
    holder = make_holder(settings)
    if holder.source.directory is not None:
        holder.load()
    app = create_app(settings, holder=holder)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
        timeout_keep_alive=30,
        http=impatient_protocol(settings.header_seconds),
        # Anybody can write X-Forwarded-For: it is believed only of proxies that were named.
        proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
    )
    # uvicorn sends itself the signal again once it is done; that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if getattr(signal, "SIGHUP", None) and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        # A terminal that closes must not cost the requests on their way.
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with contextlib.suppress(KeyboardInterrupt):
        _lingering(_server(config), app.state.service).run()
    return 0


def _server(config: uvicorn.Config) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """Refuse new connections first, and those a moment later that have asked nothing.

            A connection closed just as its request arrives is a lost request; one that is refused
            is made again elsewhere.
            """
            for listener in self.servers:
                listener.close()
            if not self.force_exit:
                await asyncio.sleep(LAST_CALL_SECONDS)
            await super().shutdown(sockets)

    return Server(config)


def _lingering(server: uvicorn.Server, service: Service) -> uvicorn.Server:
    """Let SIGTERM first tell the load balancer, and only later end the server."""
    end = server.handle_exit

    def handle_exit(number: int, frame: FrameType | None) -> None:
        linger = 0.0 if service.draining else service.settings.linger_seconds
        service.draining = True
        if number == signal.SIGTERM and linger:
            timer = threading.Timer(linger, end, (number, frame))
            timer.daemon = True
            timer.start()
        else:
            end(number, frame)

    server.handle_exit = handle_exit  # type: ignore[assignment,method-assign]
    return server


def main(argv: Sequence[str] | None = None) -> None:
    """Read the arguments, which go over ROOTSTOCK_*, and serve; exit 1 on a known error."""
    parser = argparse.ArgumentParser(
        prog="python -m rootstock.service",
        description="Serve a model over HTTP.",
        epilog=_all_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("host", "port", "model", "root"):
        text = Settings.model_fields[name].description
        parser.add_argument(f"--{name}", help=text, default=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))
    quiet_environment()
    try:
        serve(**given)
    except RootstockError as error:
        sys.exit(f"error: {error}")


def _all_settings() -> str:
    """Every setting, for `--help`."""
    lines = ["All settings, as variables:"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        said = "" if default in (None, "") else f" [{default}]"
        text = textwrap.wrap(f"{field.description}{said}", 76)
        lines += [f"  ROOTSTOCK_{name.upper()}", *(f"      {line}" for line in text)]
    return "\n".join(lines)


def _read_settings(**chosen: Any) -> Settings:
    _check_environment()
    try:
        return Settings(**chosen)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}, got {item['input']!r}"
            for item in error.errors()
        )
        raise ConfigError(
            f"the service's settings are wrong: {problems}",
            hint="they are arguments of `rootstock serve` or variables such as ROOTSTOCK_PORT",
        ) from None


def _check_environment() -> None:
    """Refuse names that are nearly a setting's: ROOTSTOCK_KEY for _KEYS would let everybody in."""
    known = list(Settings.model_fields)
    for variable in os.environ:
        name = variable.removeprefix("ROOTSTOCK_").lower()
        if name == variable.lower() or name in known or variable in _OF_OTHERS:
            continue
        near = ["keys"] if "key" in name else difflib.get_close_matches(name, known, 1, 0.75)
        near = near or [field for field in known if _is_cut_short(name, field)]
        if near:
            raise ConfigError(
                f"there is no setting {variable}",
                hint=f"did you mean ROOTSTOCK_{near[0].upper()}?",
            )
        _log.warning("there is no setting %s; it is ignored", variable)
    if not os.environ.get("ROOTSTOCK_KEYS", "unset").strip():
        raise ConfigError(
            "ROOTSTOCK_KEYS is empty",
            hint="name a file of keys, or unset it to let everybody ask",
        )


def _is_cut_short(name: str, field: str) -> bool:
    """Whether one of them is the beginning of the other, word by word."""
    words, others = name.split("_"), field.split("_")
    return all(word == other for word, other in zip(words, others, strict=False))
