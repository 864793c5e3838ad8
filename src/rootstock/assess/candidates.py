"""List the backbones to compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rootstock.backbones.packaged import installed_packages, resolve_weights

NAMED = ("packaged", "hub", "torchvision")
"""Values of `weights` that are combined with the name of an architecture."""
HUB_SHORTLIST = (
    "mobilenetv3_large_100",
    "resnet50",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_small_patch14_dinov2",
)
"""The networks that `auto` takes from the hub: a common one of each family and size class."""


def list_candidates(chosen: Sequence[str] | str, *, weights: str, name: str) -> list[str]:
    """Return weights files, ``packaged:NAME``, ``hub:NAME`` and ``torchvision:NAME``.

    The configured one comes first.
    ``chosen`` is backbone.candidates: such names, or ``auto`` for the installed packages, the files
    next to a configured weights file, and a short list if the hub is configured.
    """
    weights = resolve_weights(weights, name)
    own = f"{weights}:{name}" if weights in NAMED else weights
    if chosen != "auto":
        return list(dict.fromkeys([own, *chosen]))
    more = [f"packaged:{known}" for known in installed_packages()]
    if weights == "hub":
        more += [f"hub:{known}" for known in HUB_SHORTLIST]
    elif weights not in NAMED:
        more += sorted(map(str, Path(weights).parent.glob("*.safetensors")))
    return list(dict.fromkeys([own, *more]))


def split_candidate(candidate: str) -> tuple[str, str]:
    """Return (weights, name) as `load_backbone` accepts them."""
    kind, _, name = candidate.partition(":")
    return (kind, name) if kind in NAMED and name else (candidate, "")
