"""Choose among backbones: the best probe within the limits, the cheapest of equals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rootstock.assess.profile import BackboneFacts, BackboneProfile, DatasetProfile
from rootstock.errors import BackboneError
from rootstock.metrics import standard_error
from rootstock.plan.transfer_plan import BackboneScore


@dataclass(frozen=True)
class Limits:
    """The limits of serving; None: no limit."""

    max_params: int | None = None
    max_latency_ms: float | None = None

    def allow_size(self, parameters: int) -> bool:
        """Return whether a network with this many parameters is allowed."""
        return self.max_params is None or parameters <= self.max_params


def choose_backbone(
    profile: DatasetProfile, *, limits: Limits, latency_ms: Mapping[str, float]
) -> tuple[DatasetProfile, tuple[BackboneScore, ...], str]:
    """Return the profile of the best candidate, the scores of all, and the reason.

    ``latency_ms`` maps the SHA-256 of weights to a time; it is needed only for a limit of latency
    and for candidates within the limit of parameters. Candidates within one standard error of the
    best count as equal; the one with the fewest operations is chosen.
    Raises:
        BackboneError: no candidate is within the limits.
    """
    own = BackboneProfile(
        candidate=profile.backbone.weights,
        backbone=profile.backbone,
        similarity=profile.similarity,
        probes=profile.probes,
    )
    profiles = [own, *profile.alternatives]
    scores = [_score(each, limits, latency_ms) for each in profiles]
    scores += [BackboneScore(candidate=u.candidate, excluded=u.why) for u in profile.unusable]
    winner, why = _pick(scores)
    chosen = profiles[scores.index(winner)]
    return profile.seen_by(chosen.backbone.weights_sha256), tuple(scores), why


def _score(
    profile: BackboneProfile, limits: Limits, latency_ms: Mapping[str, float]
) -> BackboneScore:
    backbone = profile.backbone
    last = next((probe for probe in profile.probes if probe.tap == backbone.taps[-1]), None)
    return BackboneScore(
        candidate=profile.candidate,
        weights_sha256=backbone.weights_sha256,
        name=backbone.name,
        parameters=backbone.parameters,
        gflop=round(backbone.gflop_per_megapixel * backbone.input_size**2 / 1e6, 3),
        accuracy=last.accuracy if last else 0.0,
        noise=round(standard_error(last.accuracy, last.n_images), 4) if last else 0.0,
        knn=(last.knn or 0.0) if last else 0.0,
        excluded=_exclude(backbone, limits, latency_ms),
    )


def _exclude(backbone: BackboneFacts, limits: Limits, latency_ms: Mapping[str, float]) -> str:
    """Return why a backbone is excluded; empty if it is allowed."""
    if not limits.allow_size(backbone.parameters):
        return f"{backbone.parameters:,} parameters; plan.max_params is {limits.max_params:,}"
    if limits.max_latency_ms is not None:
        latency = latency_ms[backbone.weights_sha256]
        if latency > limits.max_latency_ms:
            # Without the measured time, so that the same choice gives the same plan on every
            # machine.
            return f"slower here than plan.max_latency_ms ({limits.max_latency_ms:g})"
    return ""


def _pick(scores: Sequence[BackboneScore]) -> tuple[BackboneScore, str]:
    usable = [score for score in scores if not score.excluded]
    if not usable:
        reasons = "".join(f"\n  {score.candidate}: {score.excluded}" for score in scores)
        raise BackboneError(
            f"none of the {len(scores)} backbone candidates can be used:{reasons}",
            hint="raise plan.max_latency_ms or plan.max_params, or add names to "
            "backbone.candidates",
        )
    best = max(usable, key=lambda score: score.accuracy)
    as_good = [score for score in usable if score.accuracy >= best.accuracy - best.noise]
    winner = min(as_good, key=lambda score: score.gflop)
    why = f"It has the best probe of {len(usable)} candidates: {winner.accuracy:.3f}."
    if winner is not best:
        why = (
            f"Its probe of {winner.accuracy:.3f} is within the noise ({best.noise:.3f}) of the "
            f"best, {best.accuracy:.3f} of {best.name}, and it needs only "
            f"{winner.gflop / max(best.gflop, 1e-9):.0%} of its operations."
        )
    return winner, why
