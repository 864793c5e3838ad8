"""The exponential moving average of a network's weights, which is validated and kept.

Averaged weights are nearer to the middle of the valley than the last step (Polyak and
Juditsky 1992; Tarvainen and Valpola 2017, arXiv:1703.01780).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """A copy of a network that follows it slowly; with ``decay`` 0 it follows at once."""

    def __init__(self, network: nn.Module, *, decay: float, steps: int = 0) -> None:
        self.network: Any = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.steps = steps

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards ``network``; faster in the first steps, because they start from nothing."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        pairs = zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)
        for average, value in pairs:
            if average.is_floating_point():
                average.lerp_(value, 1.0 - decay)
            else:
                average.copy_(value)
