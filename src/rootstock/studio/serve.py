"""Start and stop the studio, for `rootstock studio` and `python -m services.studio`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rootstock.errors import ConfigError, RootstockError
from rootstock.service.serve import require_port
from rootstock.service.watch.logs import set_up_logs
from rootstock.studio.settings import PREFIX, StudioSettings
from rootstock.system.escape import escape_lines
from rootstock.system.progress import say


def serve_studio(options: Mapping[str, Any], *, open_browser: bool = False) -> int:
    """Serve until SIGTERM or Ctrl-C; return 0.

    ``options`` override the ROOTSTOCK_STUDIO_* variables.
    Raises:
        ConfigError: A setting or the project is wrong, or the port is taken.
        SystemExit: 0 after SIGTERM.
    """
    import uvicorn

    from rootstock.studio.app import create_studio

    settings = read_settings(options)
    set_up_logs("text")
    require_port(settings.host, settings.port)
    app = create_studio(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        ws="none",
        proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """Print the studio's address once it listens."""
            await super().startup(sockets)
            if self.should_exit:
                return
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            address = f"http://{host}:{port}/"
            say(f"studio of {app.state.studio.project.root}: {address}")
            if open_browser:
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run()
    return 0


def read_settings(options: Mapping[str, Any]) -> StudioSettings:
    """Return the settings; ``options`` override the variables.

    Raises:
        ConfigError: A value is wrong.
    """
    try:
        return StudioSettings(**options)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ")
            for item in error.errors()
        )
        raise ConfigError(
            f"invalid studio settings: {problems}",
            hint=f"set them as arguments of `rootstock studio` or variables such as {PREFIX}PORT",
        ) from None


def main() -> int:
    """Serve with the settings of the ROOTSTOCK_STUDIO_* variables; return the exit status."""
    try:
        return serve_studio({})
    except RootstockError as error:
        say(f"error: {escape_lines(str(error))}")
        return 1
