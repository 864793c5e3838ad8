"""Stage `plan`: DatasetProfile in, TransferPlan out."""

from pipelines.entry import run
from rootstock.config import Config
from rootstock.integrations.connect import connect_searcher
from rootstock.paths import Paths
from rootstock.stages.plan import make_plan


def main(config: Config, paths: Paths) -> None:
    """Connect the search, which a race may need, then plan."""
    make_plan(config, paths, searcher=connect_searcher(config))


if __name__ == "__main__":
    run(main)
