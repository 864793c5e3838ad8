"""Variants of the forward pass on a GPU: another memory layout, and half precision.

Which of them pays depends on card and network, so they are compared with plain PyTorch
(`rootstock.features.forward`) and measured (`rootstock.features.fastest`) before one is taken.
Nothing is compiled: it takes a minute in each process, and whether it pays was not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rootstock.backbones.load import Backbone

HALF_TOLERANCE = 1e-2
"""Of the largest feature. A head learns and answers the same with features that are off by so much;
bfloat16, which is no faster, moves them by up to a twelfth."""

Network = Callable[[Tensor], Tensor]
"""Prepared images float32[N,3,S,S] in, the taps' joined features float32[N,C] out."""


@dataclass(frozen=True)
class GpuVariant:
    """``tolerance``: how far features may be off, as a share of the largest; None: no further."""

    name: str
    network: Network
    tolerance: float | None = None


def gpu_variants(backbone: Backbone, taps: Sequence[str]) -> list[GpuVariant]:
    """Return the variants worth trying; ``taps`` are single ones, shallow to deep."""
    module = backbone.feature_module("+".join(taps)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def full(images: Tensor) -> Tensor:
        return module(images.contiguous(memory_format=torch.channels_last)).float()

    @torch.inference_mode()
    def half(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.float16):
            features = module(images.contiguous(memory_format=torch.channels_last)).float()
        # Beyond the range of float16 lies infinity. A bounded activation on the way turns it into
        # what the right value would have become; where none does, it shows here.
        return features if torch.isfinite(features).all() else full(images)

    return [GpuVariant("channels_last", full), GpuVariant("float16", half, HALF_TOLERANCE)]
