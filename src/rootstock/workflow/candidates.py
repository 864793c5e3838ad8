"""Several candidate backbones: looked at in stage `assess`, chosen among in stage `plan`."""

from __future__ import annotations

from tqdm import tqdm

from rootstock.assess.build import measure_backbone, sample_rows
from rootstock.assess.candidates import list_candidates, split_candidate
from rootstock.assess.profile import BackboneProfile, DatasetProfile, Unusable
from rootstock.backbones.load import load_backbone
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.layout import base_folder
from rootstock.data.manifest import Manifest
from rootstock.errors import BackboneError
from rootstock.features.store.store import FeatureStore
from rootstock.plan.backbone import Limits, choose_backbone
from rootstock.plan.plan import BackboneScore
from rootstock.workflow.estimates import Estimate, estimate_minutes


def assess_candidates(
    config: Config, paths: Paths, manifest: Manifest, profile: DatasetProfile
) -> DatasetProfile:
    """``profile`` with what every other candidate sees of the same images."""
    names = list_candidates(
        config.backbone.candidates, weights=config.backbone.weights, name=config.backbone.name
    )[1:]
    seen: list[BackboneProfile] = []
    unusable: list[Unusable] = []
    for name in tqdm(names, desc="backbones", unit="backbone", disable=None):
        try:
            seen.append(_look(name, config, paths, manifest))
        except BackboneError as error:  # a hub that cannot be reached is a reason, not an end
            unusable.append(Unusable(candidate=name, why=error.message))
    return profile.model_copy(update={"alternatives": tuple(seen), "unusable": tuple(unusable)})


def _look(candidate: str, config: Config, paths: Paths, manifest: Manifest) -> BackboneProfile:
    weights, name = split_candidate(candidate)
    return measure_backbone(
        candidate,
        load_backbone(weights, name, device=config.features.device),
        sample_rows(manifest.rows("train"), config.assess.sample),
        root=base_folder(paths.below(config.data.root)),
        store=FeatureStore(paths.below(config.features.store)),
        similar_from=config.assess.similar_from,
        folds=config.assess.probe_folds,
        batch_size=config.features.batch_size,
        seed=config.seed,
    )


def choose_candidate(
    config: Config, paths: Paths, profile: DatasetProfile
) -> tuple[DatasetProfile, tuple[BackboneScore, ...], str, dict[str, Estimate]]:
    """The profile as the chosen backbone sees it, all scores, why, and what each takes here.

    The last by the weights' SHA-256. The profile is unchanged and all else empty where there is
    one candidate and no limit.
    Raises:
        BackboneError: no candidate is within the limits.
    """
    limits = Limits(config.plan.max_params, config.plan.max_latency_ms)
    if not profile.alternatives and not profile.unusable and limits == Limits():
        return profile, (), "", {}
    expected = _estimates(config, paths, profile, limits)
    latencies = {weights: throughput.latency_ms for weights, (throughput, _) in expected.items()}
    return *choose_backbone(profile, limits=limits, latency_ms=latencies), expected


def _estimates(
    config: Config, paths: Paths, profile: DatasetProfile, limits: Limits
) -> dict[str, Estimate]:
    others = (profile.seen_by(other.backbone.weights_sha256) for other in profile.alternatives)
    found = {}
    for seen in (profile, *others):
        facts = seen.backbone
        if not limits.allow_size(facts.parameters):
            continue  # it will not be taken, and a large network takes long to measure
        backbone = load_backbone(facts.weights, facts.name, device=config.train.device)
        found[facts.weights_sha256] = estimate_minutes(config, paths, seen, backbone)
    return found
