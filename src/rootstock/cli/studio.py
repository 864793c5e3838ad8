"""The command studio: view a project in the browser."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rootstock.cli.common import add_command


def add_commands(commands: Any) -> None:
    """Add studio."""
    command = add_command(
        commands, "studio", studio, "view a project in the browser, correct labels, promote models"
    )
    command.epilog = (
        "Each setting is also a variable ROOTSTOCK_STUDIO_<NAME>, such as ROOTSTOCK_STUDIO_PORT."
    )
    command.add_argument(
        "project", type=Path, nargs="?", help="the project's folder; default: the current one"
    )
    command.add_argument(
        "--data", type=Path, help="folder or table of its images; default: data.root of params.yaml"
    )
    command.add_argument(
        "--host", help="address to listen on (default 127.0.0.1); others require --keys"
    )
    command.add_argument("--port", type=int, help="port (default 8100); 0: any free port")
    command.add_argument("--hosts", help="further host names that browsers may use")
    command.add_argument("--keys", type=Path, help="file of keys, written by `rootstock key`")
    command.add_argument("--service", help="address of the inference service to watch")
    command.add_argument("--journal", type=Path, help="folder of the service's journal")
    command.add_argument("--pool", type=Path, help="folder of images without labels, to label")
    command.add_argument("--open", action="store_true", help="open the browser")


def studio(options: argparse.Namespace) -> None:
    """Serve the studio until the process ends."""
    from rootstock.studio.serve import serve_studio
    from rootstock.studio.settings import StudioSettings

    named = {name: getattr(options, name, None) for name in StudioSettings.model_fields}
    given = {name: value for name, value in named.items() if value is not None}
    sys.exit(serve_studio(given, open_browser=options.open))
