"""Stage `index`: images in, Manifest out."""

from pipelines.entry import run
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.integrations.connect import check_cluster
from rootstock.workflow.index import index_and_warn


def main(config: Config, paths: Paths) -> None:
    """Connect the cluster that later stages need, then index."""
    check_cluster(config)
    index_and_warn(config, paths)


if __name__ == "__main__":
    run(main)
