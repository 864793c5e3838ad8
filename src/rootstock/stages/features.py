"""Stage `features`: the bottleneck features that the plan needs, into the store."""

from __future__ import annotations

from rootstock.assess.profile import DatasetProfile
from rootstock.backbones.load import Backbone, load_backbone
from rootstock.config import Config
from rootstock.data.layout import base_folder
from rootstock.data.manifest import Manifest
from rootstock.errors import PlanError
from rootstock.features.extract import extract_features, write_feature_index
from rootstock.features.store import FeatureStore
from rootstock.paths import Paths
from rootstock.plan.plan import TransferPlan

SPLITS = ("train", "val")


def cache_features(config: Config, paths: Paths) -> None:
    """Compute the features that are missing in the store; write artifacts/features.json."""
    manifest, plan = Manifest.read(paths.manifest), TransferPlan.read(paths.plan)
    backbone = load_planned_backbone(plan, device=config.features.device)
    preprocess = backbone.card.preprocess(plan.input_size)
    rows = [row for split in SPLITS for row in manifest.rows(split)]
    store = FeatureStore(paths.below(config.features.store))
    extract_features(
        rows,
        base_folder(paths.below(config.data.root)),
        backbone,
        preprocess,
        store,
        plan.taps,
        batch_size=config.features.batch_size,
    )
    write_feature_index(paths.features, rows, backbone, preprocess, store, plan.taps)


def load_planned_backbone(plan: TransferPlan, *, device: str) -> Backbone:
    """The backbone that the plan was made for.

    Raises:
        PlanError: the weights have changed since.
    """
    return _load_known(plan.weights, plan.backbone, plan.weights_sha256, device=device)


def load_profiled_backbone(profile: DatasetProfile, *, device: str) -> Backbone:
    """The backbone that the profile was measured with.

    Raises:
        PlanError: the weights have changed since.
    """
    facts = profile.backbone
    return _load_known(facts.weights, facts.name, facts.weights_sha256, device=device)


def _load_known(weights: str, name: str, sha256: str, *, device: str) -> Backbone:
    backbone = load_backbone(weights, name, device=device)
    if backbone.card.weights_sha256 != sha256:
        raise PlanError(
            f"the weights {weights!r} are not those that the plan was made for",
            hint="run the stages `assess` and `plan` again",
        )
    return backbone
