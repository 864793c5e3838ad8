"""Adversarial images: invisible changes that alter the answer. Needs torch.

FGSM (Goodfellow et al. 2015) takes one step along the sign of the gradient; PGD (Madry et al. 2018)
takes several, and stays within the radius. Radii are in pixel levels of 255, per pixel and channel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

PGD_STEPS = 10
PGD_STEP_SHARE = 0.25
"""Step size as a share of the radius."""

LossOf = Callable[[Tensor], Tensor]
"""Outputs [N,K] -> the value to increase, summed over the images."""


def attack(
    network: nn.Module,
    pixels: Tensor,
    mean: Tensor,
    std: Tensor,
    loss: LossOf,
    *,
    radius: float,
    steps: int = PGD_STEPS,
) -> Tensor:
    """Return pixels float32[N,3,S,S] in [0, 255], at most ``radius`` from the given ones.

    ``mean`` and ``std`` [3,1,1] are those of the preprocessing, for pixels in [0, 1]. One step is
    FGSM, more are PGD. The result is deterministic: PGD starts at the image.
    """
    step = radius if steps == 1 else radius * PGD_STEP_SHARE
    low, high = (pixels - radius).clamp(min=0), (pixels + radius).clamp(max=255)
    changed = pixels.clone()
    for _ in range(steps):
        changed = changed.detach().requires_grad_()
        value = loss(network((changed / 255 - mean) / std))
        (gradient,) = torch.autograd.grad(value, changed)
        with torch.no_grad():
            changed = torch.minimum(torch.maximum(changed + step * gradient.sign(), low), high)
    return changed.detach()
