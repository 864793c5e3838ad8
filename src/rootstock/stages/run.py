"""All stages in their order, as `dvc repro` runs them."""

from __future__ import annotations

from rootstock.bundle import ModelBundle, read_bundle
from rootstock.config import Config
from rootstock.paths import Paths
from rootstock.ports import ModelRegistry, RunLogger, Searcher, Spreader
from rootstock.stages.evaluate import evaluate_model
from rootstock.stages.features import cache_features
from rootstock.stages.prepare import prepare_plan
from rootstock.stages.register import register_model
from rootstock.stages.train import train_model


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
    """From images to a registered model."""
    prepare_plan(config, paths, searcher=racer)
    cache_features(config, paths, spreader=spreader)
    train_model(config, paths, runs=runs, searcher=searcher)
    evaluate_model(config, paths, runs=runs)
    register_model(config, paths, runs=runs, registry=registry)
    return read_bundle(paths.model)
