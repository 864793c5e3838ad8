"""Run a stage: read params.yaml, and report an error in one line."""

from collections.abc import Callable
from pathlib import Path

from rootstock.system.failure import exit_on_failure, install_hook

install_hook()  # before a stage's own imports, which take seconds

from rootstock.config.load import load_config  # noqa: E402
from rootstock.config.paths import Paths  # noqa: E402
from rootstock.config.schema import Config  # noqa: E402
from rootstock.integrations.connect import check_tracking  # noqa: E402
from rootstock.system.exclusive import claim_folder  # noqa: E402


def run(stage: Callable[[Config, Paths], object]) -> None:
    """Call ``stage`` for the project in the current folder; exit with a message on an error."""
    with exit_on_failure():
        config, paths = load_config(Path("params.yaml")), Paths(Path.cwd())
        # Check the server before the first stage, not after the last feature.
        check_tracking(config, paths)
        with claim_folder(paths.root):
            stage(config, paths)
