"""Stage `register`: ModelBundle in, registry entry out; champion if it wins at the gate."""

from pipelines.entry import run
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.integrations.connect import connect_registry, connect_runs
from rootstock.workflow.register import register_model


def main(config: Config, paths: Paths) -> None:
    """Connect tracking and registry, then register."""
    register_model(
        config,
        paths,
        runs=connect_runs(config, paths),
        registry=connect_registry(config, paths),
    )


if __name__ == "__main__":
    run(main)
