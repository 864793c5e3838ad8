"""Stage `evaluate`: ModelBundle and test images in, Evaluation out."""

from pipelines.entry import run
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.integrations.connect import connect_runs
from rootstock.workflow.evaluate import evaluate_model


def main(config: Config, paths: Paths) -> None:
    """Connect tracking, then evaluate."""
    evaluate_model(config, paths, runs=connect_runs(config, paths))


if __name__ == "__main__":
    run(main)
