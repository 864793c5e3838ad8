"""Part of stage `assess`: several candidate backbones probed, one taken."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from rootstock.assess.build import score_backbone
from rootstock.assess.choose import list_candidates, pick_backbone, split_candidate
from rootstock.assess.profile import BackboneScore
from rootstock.backbones.load import Backbone, load_backbone
from rootstock.config import Config, Paths
from rootstock.data.layout import base_folder
from rootstock.data.manifest import Manifest
from rootstock.errors import BackboneError
from rootstock.features.store import FeatureStore
from rootstock.train.pace import known_pace


def choose_backbone(
    config: Config, paths: Paths, manifest: Manifest
) -> tuple[str, str, dict[str, Any]]:
    """(weights, name) of the best candidate, and the fields of the profile that tell why.

    Raises:
        BackboneError: no candidate can be used.
    """
    candidates = list_candidates(
        config.backbone.candidates, weights=config.backbone.weights, name=config.backbone.name
    )
    scores = [
        _score(candidate, config, paths, manifest)
        for candidate in tqdm(candidates, desc="backbones", unit="backbone", disable=None)
    ]
    winner, why = pick_backbone(scores)
    weights, name = split_candidate(winner.candidate)
    return weights, name, {"backbone_scores": tuple(scores), "backbone_why": why}


def _score(candidate: str, config: Config, paths: Paths, manifest: Manifest) -> BackboneScore:
    weights, name = split_candidate(candidate)
    try:
        backbone = load_backbone(weights, name, device=config.features.device)
    except BackboneError as error:  # a hub that cannot be reached is a reason, not an end
        return BackboneScore(candidate=candidate, excluded=error.message)
    over = _over_the_limits(backbone, config, paths)
    if over:
        return BackboneScore(candidate=candidate, name=backbone.card.name, excluded=over)
    return score_backbone(
        candidate,
        backbone,
        manifest,
        root=base_folder(paths.below(config.data.root)),
        store=FeatureStore(paths.below(config.features.store)),
        sample=config.assess.sample,
        folds=config.assess.probe_folds,
        batch_size=config.features.batch_size,
        seed=config.seed,
    )


def _over_the_limits(backbone: Backbone, config: Config, paths: Paths) -> str:
    limits = config.plan
    parameters = sum(p.numel() for p in backbone.module.parameters())
    if limits.max_params is not None and parameters > limits.max_params:
        return f"{parameters:,} parameters, over plan.max_params {limits.max_params:,}"
    if limits.max_latency_ms is not None:
        size = backbone.card.input_size[1]
        latency = known_pace(paths.paces, backbone, tuning_size=size).latency_ms
        if latency > limits.max_latency_ms:
            return f"{latency:.1f} ms an image here, over plan.max_latency_ms"
    return ""
