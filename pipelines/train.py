"""Stage `train`: features and plan in, ModelBundle out."""

from pipelines.entry import run
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.integrations.connect import connect_runs, connect_searcher
from rootstock.workflow.train import train_model


def main(config: Config, paths: Paths) -> None:
    """Connect tracking and search, then train."""
    train_model(config, paths, runs=connect_runs(config, paths), searcher=connect_searcher(config))


if __name__ == "__main__":
    run(main)
