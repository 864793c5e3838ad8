"""Commands of the service: serve, key."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rootstock.cli.common import add_command


def add_commands(commands: Any) -> None:
    """Add serve and key."""
    command = add_command(commands, "serve", serve, "serve a model over HTTP")
    command.epilog = (
        "All other settings, such as keys and limits, are variables ROOTSTOCK_<NAME>: see "
        "`python -m rootstock.service --help`."
    )
    command.add_argument("--host", help="default 127.0.0.1")
    command.add_argument("--port", type=int, help="default 8000")
    command.add_argument("--grpc-port", type=int, help="also serve gRPC there; default: not")
    command.add_argument("--model", help="directory or models:/ URI; default: the champion")
    command.add_argument(
        "--models", metavar="A,B", help="several registered models, or NAME=FOLDER; not --model"
    )

    command = add_command(
        commands, "key", key, "create an API key for the service; it is shown once"
    )
    command.add_argument("name", help="the holder of the key, one word")
    command.add_argument("--role", choices=["predict", "admin"], default="predict")
    command.add_argument(
        "--file",
        type=Path,
        required=True,
        help="add the hash of the key to this file; serve with ROOTSTOCK_KEYS=FILE",
    )


def serve(options: argparse.Namespace) -> None:
    """Serve a model over HTTP."""
    from rootstock.service.serve import serve as serve_http

    names = ("host", "port", "grpc_port", "model", "models")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    sys.exit(serve_http(**given))


def key(options: argparse.Namespace) -> None:
    """Create an API key; print the key and write its hash to the file."""
    from rootstock.service.http.keys import make_key

    print(make_key(options.name, options.role, options.file))
    print(
        f"{options.file} contains only the hash: store the key now, it is not shown again",
        file=sys.stderr,
    )
