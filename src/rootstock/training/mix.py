"""Mix images and labels: mixup and cutmix.

mixup blends two images (Zhang et al. 2018, arXiv:1710.09412), cutmix pastes a box of one into the
other (Yun et al. 2019, arXiv:1905.04899); the target is shared in the same proportion.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MIXUP_FROM = 20_000
"""Training images from which `auto` mixes: the threshold of Big Transfer, below which mixing did
harm
(Kolesnikov et al. 2020, arXiv:1912.11370)."""
MIXUP_ALPHA = 0.1
"""Big Transfer's strength."""


def choose_mixup(alpha: float | str, *, n_train: int) -> float:
    """Return the strength of mixup: as given, or for ``auto`` by the number of training images."""
    if isinstance(alpha, str):
        return MIXUP_ALPHA if n_train >= MIXUP_FROM else 0.0
    return alpha


def mix_batch(
    images: Tensor,
    targets: Tensor,
    *,
    mixup: float,
    cutmix: float,
    draw: tuple[int, int, int],
) -> tuple[Tensor, Tensor]:
    """Mix each image [B,3,S,S] and its encoded target [B,...] with another of the batch.

    ``mixup`` and ``cutmix`` are the alphas of their Beta distributions, 0: off; if both are on,
    each batch uses one at random. ``draw`` (seed, epoch, step) determines all random numbers.
    """
    random = np.random.default_rng(draw)
    cut = cutmix > 0 and (mixup == 0 or random.random() < 0.5)
    alpha = cutmix if cut else mixup
    if alpha == 0:
        return images, targets
    share = float(random.beta(alpha, alpha))
    partner = torch.from_numpy(random.permutation(len(images))).to(images.device)
    if cut:
        images, share = _paste(images, images[partner], share, random)
    else:
        images = share * images + (1 - share) * images[partner]
    return images, share * targets + (1 - share) * targets[partner]


def _paste(
    images: Tensor, others: Tensor, share: float, random: np.random.Generator
) -> tuple[Tensor, float]:
    """Return images with a box of 1 - ``share`` of the area pasted in, and the exact share kept."""
    height, width = images.shape[2:]
    box_height, box_width = (round(side * (1 - share) ** 0.5) for side in (height, width))
    top = int(random.integers(0, height - box_height + 1))
    left = int(random.integers(0, width - box_width + 1))
    mixed = images.clone()
    rows, columns = slice(top, top + box_height), slice(left, left + box_width)
    mixed[:, :, rows, columns] = others[:, :, rows, columns]
    return mixed, 1 - box_height * box_width / (height * width)


def balanced_order(strata: np.ndarray, *, seed: int, epoch: int) -> Tensor:
    """Return row numbers int64[N] of one epoch in which every stratum comes equally often.

    A stratum with too many images shows another part of them in each epoch; one with too few
    repeats.
    """
    random = np.random.default_rng((seed, epoch))
    numbers = np.unique(strata)
    each = -(-len(strata) // len(numbers))
    drawn = []
    for number in numbers:
        members = random.permutation(np.flatnonzero(strata == number))
        drawn.append(np.resize(members, each))
    order = random.permutation(np.concatenate(drawn))[: len(strata)]
    return torch.from_numpy(order)
