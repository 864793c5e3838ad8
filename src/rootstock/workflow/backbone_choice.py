"""Candidate backbones: the stage `assess` measures them, the stage `plan` chooses one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rootstock.assess.profile import BackboneProfile, DatasetProfile, Unusable
from rootstock.errors import BackboneError
from rootstock.plan.backbone import Limits, choose_backbone
from rootstock.plan.transfer_plan import BackboneScore
from rootstock.system.progress import Progress
from rootstock.workflow.estimates import Estimate


def measure_candidates(
    names: Sequence[str], measure: Callable[[str], BackboneProfile]
) -> tuple[tuple[BackboneProfile, ...], tuple[Unusable, ...]]:
    """Return the measurements of each candidate on the same images, and the unusable ones."""
    profiles: list[BackboneProfile] = []
    unusable: list[Unusable] = []
    with Progress("backbones", len(names), "backbone") as progress:
        for name in names:
            try:
                profiles.append(measure(name))
            except BackboneError as error:  # an unreachable hub is a reason, not a failure
                unusable.append(Unusable(candidate=name, why=error.message))
            progress.update()
    return tuple(profiles), tuple(unusable)


@dataclass(frozen=True)
class BackboneChoice:
    """The profile as measured with the chosen backbone; other fields are empty without a choice.

    ``estimates`` by the SHA-256 of the weights.
    """

    profile: DatasetProfile
    scores: tuple[BackboneScore, ...] = ()
    why: str = ""
    estimates: dict[str, Estimate] = field(default_factory=dict)


def choose_candidate(
    profile: DatasetProfile, limits: Limits, estimate: Callable[[DatasetProfile], Estimate]
) -> BackboneChoice:
    """Choose the best candidate within the limits; a single one without limits is not a choice.

    ``estimate`` measures a profile's backbone on this machine.
    Raises:
        BackboneError: no candidate is within the limits.
    """
    if not profile.alternatives and not profile.unusable and limits == Limits():
        return BackboneChoice(profile)
    others = (profile.seen_by(other.backbone.weights_sha256) for other in profile.alternatives)
    estimates = {
        each.backbone.weights_sha256: estimate(each)
        for each in (profile, *others)
        # A candidate that is too large will not be chosen, and takes long to measure.
        if limits.allow_size(each.backbone.parameters)
    }
    latencies = {weights: throughput.latency_ms for weights, (throughput, _) in estimates.items()}
    return BackboneChoice(*choose_backbone(profile, limits=limits, latency_ms=latencies), estimates)
