"""TapFeatures: the outputs of a network at its taps, pooled or as maps on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Features = TypeVar("Features", Tensor, np.ndarray)


class TapPart(NamedTuple):
    """One part of the features of joined taps: C channels, on a grid of G x G or pooled (0).

    Pooled means averaged, or the maximum if ``takes_max``. ``position`` is the map's index in the
    network; None: the features that the classifier reads.
    """

    channels: int
    grid: int = 0
    position: int | None = None
    takes_max: bool = False

    @property
    def width(self) -> int:
        """Numbers per image."""
        return self.channels * max(1, self.grid**2)


class TapFeatures(nn.Module):
    """images float32[N,3,S,S] -> features [N,D], the ``parts`` joined in their order.

    A part with a grid is [C,G,G], flattened.
    """

    def __init__(self, module: nn.Module, parts: Sequence[TapPart]) -> None:
        super().__init__()
        # Any, because timm's networks have methods that nn.Module does not declare.
        self.module: Any = module
        self.parts = tuple(parts)

    def forward(self, images: Tensor) -> Tensor:
        return _join([feature for _, feature in self._read(images)])

    def with_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the features and, for each part, maps [N,c,h,w] whose means they are.

        For a part with a grid, the map is that grid [N,c,G,G]; for a maximum, it is `keep_maxima`.
        The input of the pooling for ``last`` may be tokens, and the network may compute more after
        pooling; the features are not the means then.
        """
        read = self._read(images)
        maps = []
        for part, (whole, feature) in zip(self.parts, read, strict=True):
            if part.takes_max:
                maps.append(keep_maxima(whole, feature))
            elif part.grid:
                maps.append(feature.reshape(-1, part.channels, part.grid, part.grid))
            else:
                maps.append(whole)
        return _join([feature for _, feature in read]), maps

    def _read(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return for each part the input of the pooling, and the pooled features [N,width]."""
        indices = sorted({part.position for part in self.parts if part.position is not None})
        final: Any = None
        maps: list[Tensor] = []
        if not indices:
            final = self.module.forward_features(images)
        elif any(part.position is None for part in self.parts):
            final, maps = self.module.forward_intermediates(images, indices=indices)
        else:
            maps = self.module.forward_intermediates(
                images, indices=indices, intermediates_only=True, stop_early=True
            )
        by_index = dict(zip(indices, maps, strict=True))
        read = []
        for part in self.parts:
            whole = final if part.position is None else by_index[part.position]
            if part.takes_max:
                feature = whole.amax(dim=(2, 3))
            elif part.position is None:
                feature = self.module.forward_head(final, pre_logits=True)
            else:
                feature = pool_map(whole, part.grid)
            read.append((whole, feature))
        return read


def keep_maxima(maps: Tensor, maxima: Tensor) -> Tensor:
    """Return maps [N,C,H,W] that are 0 except where a channel reaches its maximum [N,C].

    They are scaled so that their means are the maxima; tied positions share one.
    """
    height, width = int(maps.shape[2]), int(maps.shape[3])
    top = maxima[:, :, None, None]
    wins = (maps == top).to(maps.dtype)
    return wins * (top * float(height * width) / wins.sum(dim=(2, 3), keepdim=True))


def _join(features: Sequence[Tensor]) -> Tensor:
    return features[0] if len(features) == 1 else torch.cat(list(features), dim=1)


def pool_map(maps: Tensor, grid: int) -> Tensor:
    """Return maps [N,C,H,W] averaged, as [N,C], or over each cell of a grid, as [N,C*G*G].

    The cells are those of adaptive average pooling, which ONNX does not have, so they are written
    as products with constants.
    """
    if not grid:
        return maps.mean(dim=(2, 3))
    height, width = int(maps.shape[2]), int(maps.shape[3])
    if (height, width) != (grid, grid):
        rows, columns = (_cells(side, grid).to(maps) for side in (height, width))
        maps = rows @ maps @ columns.T
    return maps.flatten(1)


def _cells(side: int, grid: int) -> Tensor:
    """Return [G,side]: the share of each position in each cell."""
    return F.adaptive_avg_pool1d(torch.eye(side).unsqueeze(0), grid)[0].T


def average_grids(features: Features, parts: Sequence[TapPart]) -> Features:
    """Return features [N,D] with every grid averaged: [N, sum of C]."""
    if not any(part.grid for part in parts):
        return features
    averaged, start = [], 0
    for part in parts:
        values = features[:, start : start + part.width]
        if part.grid:
            values = values.reshape(-1, part.channels, part.grid**2).mean(2)
        averaged.append(values)
        start += part.width
    if isinstance(features, Tensor):
        return torch.cat(averaged, dim=1)
    return np.concatenate(averaged, axis=1)


def average_width(parts: Sequence[TapPart]) -> int:
    """Return the number of features with every grid averaged."""
    return sum(part.channels for part in parts)
