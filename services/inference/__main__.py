"""`python -m services.inference`: the service on its own, also what `rootstock serve` calls."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from rootstock.errors import ConfigError, RootstockError
from rootstock.integrations.connect import quiet_environment
from services.inference.settings import Settings


def serve(settings: Settings | None = None, **chosen: Any) -> int:
    """Serve until SIGTERM or Ctrl-C, then let running requests finish; returns 0.

    ``chosen`` settings go over the ROOTSTOCK_* variables. Raises:
        ConfigError: a setting is wrong.
        BundleError: `model` is a directory that cannot be used. A registry without a model
            is no error: the service starts, answers 503, and waits for one.
        SystemExit: 0 after SIGTERM, 1 if the port is taken.
    """
    import uvicorn

    from services.inference.app import create_app, make_holder

    settings = settings or _read_settings(**chosen)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("rootstock").setLevel(logging.INFO)
    holder = make_holder(settings)
    if holder.source.directory is not None:
        holder.load()
    config = uvicorn.Config(
        create_app(settings, holder=holder),
        host=settings.host,
        port=settings.port,
        log_level="info",
        access_log=False,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    # uvicorn sends itself the signal again once it is done; that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run()
    return 0


def main(argv: Sequence[str] | None = None) -> None:
    """Read the arguments, which go over ROOTSTOCK_*, and serve; exit 1 on a known error."""
    parser = argparse.ArgumentParser(
        prog="python -m services.inference", description="Serve a model over HTTP."
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


def _read_settings(**chosen: Any) -> Settings:
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


if __name__ == "__main__":
    main()
