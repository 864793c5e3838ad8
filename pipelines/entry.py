"""What every stage file does around its one call: read params.yaml, report errors in a line."""

import sys
from collections.abc import Callable
from pathlib import Path

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.errors import RootstockError
from rootstock.integrations.connect import check_tracking, quiet_environment
from rootstock.system.escape import escape_lines


def run(stage: Callable[[Config, Paths], object]) -> None:
    """Call ``stage`` with the project in the current folder; exit 1 with the message on error."""
    quiet_environment()
    try:
        config, paths = load_config(Path("params.yaml")), Paths(Path.cwd())
        # A server that refuses is known of before the first stage, not after the last feature.
        check_tracking(config, paths)
        stage(config, paths)
    except RootstockError as error:
        sys.exit(f"error: {escape_lines(str(error))}")
