"""Which backbones are compared: names in, names out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

HUBS = ("hub", "torchvision")
"""Values of backbone.weights that need a name."""
HUB_SHORTLIST = (
    "mobilenetv3_large_100",
    "resnet50",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_small_patch14_dinov2",
)
"""What `auto` asks the hub for: one widely used network of each family and size class."""


def list_candidates(chosen: Sequence[str] | str, *, weights: str, name: str) -> list[str]:
    """Return ``embedded``, weights files, ``hub:NAME`` and ``torchvision:NAME``.

    The configured one comes first.
    ``chosen`` is backbone.candidates: those names, or ``auto`` for the embedded network, what
    lies beside a configured weights file, and a short list where the hub is configured.
    """
    own = f"{weights}:{name}" if weights in HUBS else weights
    if chosen != "auto":
        return list(dict.fromkeys([own, *chosen]))
    more = ["embedded"]
    if weights == "hub":
        more += [f"hub:{known}" for known in HUB_SHORTLIST]
    elif weights not in ("embedded", *HUBS):
        more += sorted(map(str, Path(weights).parent.glob("*.safetensors")))
    return list(dict.fromkeys([own, *more]))


def split_candidate(candidate: str) -> tuple[str, str]:
    """(weights, name) as `load_backbone` takes them."""
    kind, _, name = candidate.partition(":")
    return (kind, name) if kind in HUBS and name else (candidate, "")
