"""Stage `assess`: Manifest in, DatasetProfile out."""

from __future__ import annotations

from rootstock.assess.build import build_profile
from rootstock.assess.profile import DatasetProfile
from rootstock.backbones.load import load_backbone
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.layout import base_folder
from rootstock.data.manifest import Manifest
from rootstock.features.store.store import FeatureStore
from rootstock.workflow.candidates import assess_candidates
from rootstock.workflow.review import review_data


def assess_data(config: Config, paths: Paths) -> DatasetProfile:
    """Write artifacts/profile.json (size, similarity, probes by depth) and the review."""
    manifest = Manifest.read(paths.manifest)
    backbone = load_backbone(
        config.backbone.weights, config.backbone.name, device=config.features.device
    )
    limits = {
        "small_below": config.assess.small_below,
        "small_per_class_below": config.assess.small_per_class_below,
        "large_from": config.assess.large_from,
    }
    profile = build_profile(
        manifest,
        root=base_folder(paths.below(config.data.root)),
        backbone=backbone,
        store=FeatureStore(paths.below(config.features.store)),
        thresholds=limits,
        similar_from=config.assess.similar_from,
        sample=config.assess.sample,
        folds=config.assess.probe_folds,
        batch_size=config.features.batch_size,
        seed=config.seed,
    )
    if config.backbone.candidates:
        profile = assess_candidates(config, paths, manifest, profile)
    profile.write(paths.profile)
    review_data(config, paths, manifest, profile, backbone)
    return profile
