"""Variants of the forward pass on a GPU: another memory layout, and half precision.

Which of them is faster depends on card and network, so they are compared with plain PyTorch
(`rootstock.features.forward`) and measured (`rootstock.features.fastest`) first. Nothing is
compiled: it takes a minute in each process, and its gain was not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rootstock.backbones.load import Backbone

HALF_TOLERANCE = 1e-2
"""Tolerance, relative to the largest feature. A head learns and answers the same with such
differences;
bfloat16, which is not faster, causes up to a twelfth."""

Network = Callable[[Tensor], Tensor]
"""Maps prepared images float32[N,3,S,S] to the taps' joined features float32[N,C]."""


@dataclass(frozen=True)
class GpuVariant:
    """A variant; ``tolerance``: largest relative difference of features; None: the default."""

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
        # Values beyond the range of float16 become infinite. A bounded activation later turns them
        # into the right value; without one, the check finds them here.
        return features if torch.isfinite(features).all() else full(images)

    return [GpuVariant("channels_last", full), GpuVariant("float16", half, HALF_TOLERANCE)]
