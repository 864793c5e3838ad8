"""How a GPU may compute the same features faster: memory layout, half precision, compiled.

Which of them pays depends on card and network, so they are proved against the plain way
(`rootstock.features.forward`) and measured (`rootstock.features.fastest`) before one is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rootstock.backbones.load import Backbone

COMPILE_FROM = 50_000
"""Images from which on compiling, which takes a minute or so, can pay."""
HALF_TOLERANCE = 1e-2
"""Of the largest feature. A head learns and answers the same with features that are off by so much;
bfloat16, which is no faster, moves them by up to a twelfth (docs/benchmarks.md)."""

Network = Callable[[Tensor], Tensor]
"""Prepared images float32[N,3,S,S] in, the taps' features float32[N,C] side by side out."""


@dataclass(frozen=True)
class GpuWay:
    """``tolerance``: how far features may be off, as a share of the largest; None: no further."""

    name: str
    network: Network
    tolerance: float | None = None


def gpu_ways(backbone: Backbone, taps: Sequence[str], *, n_images: int) -> list[GpuWay]:
    """The ways worth trying for ``n_images``; ``taps`` are single ones, shallow to deep."""
    module = backbone.feature_module("+".join(taps)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    exact = _exact(module)
    ways = [
        GpuWay("channels_last", exact),
        GpuWay("float16", _halved(module, exact), HALF_TOLERANCE),
    ]
    if n_images >= COMPILE_FROM:
        compiled = _halved(torch.compile(module), exact)
        ways.append(GpuWay("float16, compiled", compiled, HALF_TOLERANCE))
    return ways


def _exact(module: Network) -> Network:
    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        return module(images.contiguous(memory_format=torch.channels_last)).float()

    return run


def _halved(module: Network, exact: Network) -> Network:
    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.float16):
            found = module(images.contiguous(memory_format=torch.channels_last)).float()
        # An activation beyond the range of float16 has no business in the store
        return found if torch.isfinite(found).all() else exact(images)

    return run
