"""All stages in order, as `dvc repro` runs them."""

from __future__ import annotations

from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.model.bundle import ModelBundle, read_bundle
from rootstock.ports.registry import ModelRegistry
from rootstock.ports.runs import RunLogger
from rootstock.ports.search import Searcher
from rootstock.ports.spread import Spreader
from rootstock.system.exclusive import claim_folder
from rootstock.workflow.evaluate import evaluate_model
from rootstock.workflow.features import cache_features
from rootstock.workflow.prepare import prepare_plan
from rootstock.workflow.register import register_model
from rootstock.workflow.start import check_start
from rootstock.workflow.train import train_model


def run_all(
    config: Config,
    paths: Paths,
    *,
    runs: RunLogger,
    searcher: Searcher,
    racer: Searcher,
    spreader: Spreader,
    registry: ModelRegistry | None,
) -> ModelBundle:
    """Run all stages, from images to a registered model.

    Raises:
        ArtifactError: another run is writing to the same folder.
    """
    check_start(config, paths)
    with claim_folder(paths.root):
        prepare_plan(config, paths, searcher=racer)
        cache_features(config, paths, spreader=spreader)
        train_model(config, paths, runs=runs, searcher=searcher)
        evaluate_model(config, paths, runs=runs)
        register_model(config, paths, runs=runs, registry=registry)
        return read_bundle(paths.model)
