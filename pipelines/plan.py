"""Stage `plan`: DatasetProfile in, TransferPlan out."""

from pipelines.entry import run
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.integrations.connect import connect_racer
from rootstock.workflow.plan import make_plan


def main(config: Config, paths: Paths) -> None:
    """Connect the cluster that a race may use, then plan."""
    make_plan(config, paths, searcher=connect_racer(config))


if __name__ == "__main__":
    run(main)
