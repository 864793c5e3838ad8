"""Which of several backbones: each one probed on the same images, the limits kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rootstock.assess.profile import BackboneScore
from rootstock.errors import BackboneError

HUB_SHORTLIST = (
    "mobilenetv3_large_100",
    "resnet50",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_small_patch14_dinov2",
)
"""What `auto` asks the hub for: one widely used network of each family and size class."""


def list_candidates(chosen: Sequence[str] | str, *, weights: str, name: str) -> list[str]:
    """Candidate names: ``embedded``, weights files and ``hub:NAME``, the configured one first.

    ``chosen`` is backbone.candidates: those names, or ``auto`` for the embedded network, what
    lies beside a configured weights file, and a short list where the hub is configured.
    """
    own = f"hub:{name}" if weights == "hub" else weights
    if chosen != "auto":
        return list(dict.fromkeys([own, *chosen]))
    more = ["embedded"]
    if weights == "hub":
        more += [f"hub:{known}" for known in HUB_SHORTLIST]
    elif weights != "embedded":
        more += sorted(map(str, Path(weights).parent.glob("*.safetensors")))
    return list(dict.fromkeys([own, *more]))


def split_candidate(candidate: str) -> tuple[str, str]:
    """(weights, name) as `load_backbone` takes them."""
    kind, _, name = candidate.partition(":")
    return ("hub", name) if kind == "hub" and name else (candidate, "")


def pick_backbone(scores: Sequence[BackboneScore]) -> tuple[BackboneScore, str]:
    """The best probe among the candidates that are within the limits, and why.

    Candidates within one standard error of the best are as good; the cheapest of them is taken.
    Raises:
        BackboneError: no candidate can be used.
    """
    usable = [score for score in scores if not score.excluded]
    if not usable:
        reasons = "".join(f"\n  {score.candidate}: {score.excluded}" for score in scores)
        raise BackboneError(
            f"none of the {len(scores)} backbone candidates can be used:{reasons}",
            hint="loosen plan.max_latency_ms or plan.max_params, or add to backbone.candidates",
        )
    best = max(usable, key=lambda score: score.accuracy)
    as_good = [score for score in usable if score.accuracy >= best.accuracy - best.noise]
    winner = min(as_good, key=lambda score: score.gflop)
    why = f"the best probe of {len(usable)} candidates: {winner.accuracy:.3f}."
    if winner is not best:
        why = (
            f"its probe of {winner.accuracy:.3f} is within the noise ({best.noise:.3f}) of the "
            f"best, {best.accuracy:.3f} of {best.name}, and it costs "
            f"{winner.gflop / max(best.gflop, 1e-9):.0%} of its operations."
        )
    return winner, why
