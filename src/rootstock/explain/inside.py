"""The inside of a network: filters, activation maps, and the patches that excite channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from rootstock.explain.lens import Lens, receptive_field, to_tensor


@dataclass(frozen=True)
class Patch:
    """The part of a view that excites a channel, uint8[P,P,3], and how strongly."""

    pixels: np.ndarray
    activation: float


def read_filters(lens: Lens) -> list[np.ndarray]:
    """Return the filters of the first convolution as uint8[k,k,3], each scaled to its range."""
    first = next(one for one in lens.backbone.modules() if isinstance(one, nn.Conv2d))
    weights = first.weight.detach().permute(0, 2, 3, 1).numpy()
    return [stretch(one if one.shape[-1] == 3 else one[..., :1].repeat(3, -1)) for one in weights]


def strongest_maps(lens: Lens, view: np.ndarray, *, count: int) -> list[list[np.ndarray]]:
    """Return, per tap, the ``count`` maps float32[h,w] that differ most over a view."""
    strongest = []
    with torch.inference_mode():
        for (part,) in lens.maps(to_tensor(view)):
            channels = part.flatten(1).std(dim=1).topk(min(count, len(part))).indices
            strongest.append([part[channel].numpy() for channel in channels])
    return strongest


def busiest_channels(lens: Lens, views: Sequence[np.ndarray], tap: int, *, count: int) -> list[int]:
    """Return the channels of a tap whose maxima differ most between views."""
    maxima = np.stack([_map(lens, view, tap).max(axis=(1, 2)) for view in views])
    return np.argsort(-maxima.std(axis=0), kind="stable")[:count].tolist()


def exciting_patches(
    lens: Lens, views: Sequence[np.ndarray], tap: int, channel: int, *, count: int
) -> list[Patch]:
    """Return the patches of views uint8[S,S,3] that excite a channel most, one per view.

    A patch is as large as the tap's receptive field, clipped at the border of the view.
    """
    side = receptive_field(lens, tap)
    found = []
    for view in views:
        excitement = _map(lens, view, tap)[channel]
        row, column = np.unravel_index(excitement.argmax(), excitement.shape)
        scale = len(view) / len(excitement)
        half = min(side, len(view)) // 2
        y, x = (int(np.clip((at + 0.5) * scale, half, len(view) - half)) for at in (row, column))
        pixels = view[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        found.append(Patch(pixels, float(excitement[row, column])))
    return sorted(found, key=lambda patch: -patch.activation)[:count]


def _map(lens: Lens, view: np.ndarray, tap: int) -> np.ndarray:
    with torch.inference_mode():
        return lens.map_at(to_tensor(view), tap)[0].numpy()


def stretch(values: np.ndarray) -> np.ndarray:
    """Return uint8 of the same shape, scaled from the lowest to the highest value."""
    low, high = float(values.min()), float(values.max())
    return np.round(255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)
