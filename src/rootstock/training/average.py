"""The average of several networks' weights: the gain of an ensemble at the cost of one network.

Trials that start from the same pretrained weights and head end in one valley, where the mean of
their weights is often better than any of them (Wortsman et al. 2022, "Model soups",
arXiv:2203.05482). The mean with the weights before fine-tuning is also better if images are few
and fine-tuning went too far (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models",
arXiv:2109.01903).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def average_weights(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of the floating tensors of state dicts; others as in the first."""
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
