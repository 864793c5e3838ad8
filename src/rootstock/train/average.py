"""The average of several trials' weights: the gain of an ensemble at the serving cost of one.

Trials that start from the same pretrained weights and head end in one valley, where the mean of
their weights is often better than any of them (Wortsman et al. 2022, "Model soups",
arXiv:2203.05482).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def average_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the floating tensors of safetensors files; others as in the first."""
    states = [load_file(file) for file in files]
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
