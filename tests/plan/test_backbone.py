import pytest

from rootstock.assess.profile import BackboneProfile, Probe, Unusable
from rootstock.errors import BackboneError
from rootstock.plan.backbone import Limits, choose_backbone
from tests.plan.test_planner import TAPS, make_profile


def probes(accuracy):
    return (Probe(tap=TAPS[-1], accuracy=accuracy, std=0.01, n_images=200, knn=0.5),)


def profile_with(own, other, **facts):
    """Return a profile of the configured backbone, and one alternative that may differ in facts."""
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
    assert "max_latency_ms (2)" in scores[1].excluded


def test_when_nothing_is_left_every_reason_is_reported():
    profile = profile_with(0.7, 0.9).model_copy(
        update={"unusable": (Unusable(candidate="hub:x", why="no hub"),)}
    )
    with pytest.raises(BackboneError, match=r"none of the 3(.|\n)*hub:x: no hub"):
        chosen(profile, limits=Limits(max_params=1))


def test_score_holds_what_was_measured_of_each_candidate():
    profile = profile_with(0.8, 0.7, parameters=7, gflop_per_megapixel=3.0, input_size=100)
    _, (own, other), _ = chosen(profile)
    assert (own.name, own.candidate, own.accuracy) == ("mobilenetv2_100", "hub", 0.8)
    assert (own.weights_sha256, own.parameters, own.knn) == ("w" * 64, 2_200_000, 0.5)
    assert own.gflop == pytest.approx(12.0 * 0.224**2, abs=1e-3)
    assert own.noise == pytest.approx((0.8 * 0.2 / 200) ** 0.5, abs=2e-4)
    assert (other.name, other.candidate, other.accuracy) == ("other", "other.safetensors", 0.7)
    assert (other.parameters, other.gflop, other.excluded) == (7, 0.03, "")


def test_a_candidate_that_was_not_probed_scores_nothing():
    profile = make_profile(probes=())
    _, (score,), _ = chosen(profile)
    assert (score.accuracy, score.noise, score.knn) == (0.0, 0.0, 0.0)


def test_a_limit_itself_is_within_the_limit():
    profile = profile_with(0.8, 0.7)
    limits = Limits(max_params=2_200_000, max_latency_ms=5.0)
    _, scores, _ = chosen(profile, limits=limits, latency_ms={"w" * 64: 5.0, "o" * 64: 5.1})
    assert [bool(score.excluded) for score in scores] == [False, True]


def test_reason_compares_cheaper_backbone_with_best():
    profile = profile_with(0.80, 0.81, gflop_per_megapixel=24.0)
    name, _, why = chosen(profile)
    assert name == "mobilenetv2_100"
    assert "probe of 0.800 is within the noise (0.028) of the best, 0.810 of other" in why
    assert "50% of its operations" in why
