"""Cost of a forward pass, counted rather than timed."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from rootstock.backbones.load import Backbone


def forward_gflop(backbone: Backbone, input_size: int) -> float:
    """Return the floating-point operations, in billions, for one image of this side in pixels."""
    image = torch.zeros(1, 3, input_size, input_size, device=backbone.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.module(image)
    return counter.get_total_flops() / 1e9
