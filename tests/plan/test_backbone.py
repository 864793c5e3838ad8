import pytest

from rootstock.assess.profile import BackboneProfile, Probe, Unusable
from rootstock.errors import BackboneError
from rootstock.plan.backbone import Limits, choose_backbone
from tests.plan.test_planner import TAPS, make_profile


def probes(accuracy):
    return (Probe(tap=TAPS[-1], accuracy=accuracy, std=0.01, n_images=200, knn=0.5),)


def profile_with(own, other, **facts):
    """A profile of the configured backbone, and one alternative that may differ in facts."""
    profile = make_profile(probes=probes(own))
    backbone = profile.backbone.model_copy(
        update={"name": "other", "weights_sha256": "o" * 64, **facts}
    )
    alternative = BackboneProfile(
        candidate="other.safetensors",
        backbone=backbone,
        similarity=profile.similarity,
        probes=probes(other),
    )
    return profile.model_copy(update={"alternatives": (alternative,)})


def chosen(profile, *, limits=None, latency_ms=None):
    found, scores, why = choose_backbone(
        profile, limits=limits or Limits(), latency_ms=latency_ms or {}
    )
    return found.backbone.name, scores, why


def test_the_best_probe_wins_beyond_the_noise():
    name, scores, why = chosen(profile_with(0.7, 0.9))
    assert name == "other"
    assert [score.accuracy for score in scores] == [0.7, 0.9]
    assert "best probe of 2" in why


def test_within_the_noise_the_cheaper_backbone_wins():
    name, _, why = chosen(profile_with(0.9, 0.89, gflop_per_megapixel=1.2))
    assert name == "other"
    assert "10%" in why


def test_the_profile_becomes_what_the_chosen_backbone_sees():
    profile = profile_with(0.7, 0.9)
    found, _, _ = choose_backbone(profile, limits=Limits(), latency_ms={})
    assert found.probes[0].accuracy == 0.9
    assert found == profile.seen_by("o" * 64)
    assert profile.seen_by("unknown") is profile


def test_too_many_parameters_exclude_a_backbone():
    profile = profile_with(0.7, 0.9, parameters=9_000_000)
    name, scores, _ = chosen(profile, limits=Limits(max_params=5_000_000))
    assert name == "mobilenetv2_100"
    assert "9,000,000 parameters" in scores[1].excluded


def test_a_slow_backbone_is_excluded():
    latency = {"w" * 64: 1.0, "o" * 64: 5.0}
    name, scores, _ = chosen(
        profile_with(0.7, 0.9), limits=Limits(max_latency_ms=2.0), latency_ms=latency
    )
    assert name == "mobilenetv2_100"
    assert "max_latency_ms 2" in scores[1].excluded


def test_when_nothing_is_left_every_reason_is_said():
    profile = profile_with(0.7, 0.9).model_copy(
        update={"unusable": (Unusable(candidate="hub:x", why="no hub"),)}
    )
    with pytest.raises(BackboneError, match=r"none of the 3(.|\n)*hub:x: no hub"):
        chosen(profile, limits=Limits(max_params=1))
