"""Heads with an output for each position of an image: a linear layer, and a light decoder.

Features are maps of several depths, each on its own grid. Interpolation is written as products
with constant matrices, so that numpy, PyTorch and ONNX compute the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

DECODER_WIDTH = 96
"""Channels of the decoder for fine-tuning."""

MapShape = tuple[int, int]
"""Channels, and cells along each side, of a map."""


@lru_cache(64)
def interpolation(source: int, target: int) -> np.ndarray:
    """Return float32[target,source]: weights of the linear interpolation of cells along a side.

    Cells are at their centres; beyond the first and last centre the edge continues.
    """
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    place = np.clip(centres, 0, source - 1)
    before = np.minimum(np.floor(place).astype(int), max(source - 2, 0))
    after = np.minimum(before + 1, source - 1)
    matrix = np.zeros((target, source), np.float32)
    rows = np.arange(target)
    np.add.at(matrix, (rows, before), 1 - (place - before))
    np.add.at(matrix, (rows, after), place - before)
    return matrix


def split_maps(features: np.ndarray, shapes: Sequence[MapShape]) -> list[np.ndarray]:
    """Return the maps float32[N,c,g,g] that were joined to features [N,D]."""
    maps, start = [], 0
    for channels, side in shapes:
        width = channels * side * side
        part = features[:, start : start + width].astype(np.float32)
        maps.append(part.reshape(len(features), channels, side, side))
        start += width
    return maps


def resize_maps(maps: np.ndarray, side: int) -> np.ndarray:
    """Return maps [N,c,h,w] interpolated to [N,c,side,side]."""
    rows, columns = (interpolation(size, side) for size in maps.shape[2:])
    resized: np.ndarray = rows @ maps @ columns.T
    return resized


class MapModule(nn.Module):
    """Features [N,D] -> outputs [N,K*G*G]: a linear layer at each of G x G positions.

    With ``hidden`` channels, a decoder of three convolutions on the same maps is added; it starts
    at zero.
    """

    def __init__(
        self, weights: np.ndarray, bias: np.ndarray, shapes: Sequence[MapShape], grid: int, *,
        hidden: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shapes, self.grid, self.hidden = tuple(shapes), grid, hidden
        n_names, channels = weights.shape
        self.linear = nn.Conv2d(channels, n_names, 1)
        if hidden:
            self.inner = nn.Conv2d(channels, hidden, 1)
            self.middle = nn.Conv2d(hidden, hidden, 3, padding=1)
            self.outer = nn.Conv2d(hidden, n_names, 1)
            chance = torch.Generator().manual_seed(0)
            for layer in (self.inner, self.middle):
                fan_in = layer.weight[0].numel()
                nn.init.normal_(layer.weight, std=(2 / fan_in) ** 0.5, generator=chance)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(weights)[:, :, None, None])
            self.linear.bias.copy_(torch.from_numpy(bias))  # type: ignore[union-attr]

    @property
    def n_outputs(self) -> int:
        """The number of outputs K*G*G."""
        return self.linear.out_channels * self.grid**2

    def forward(self, features: Tensor) -> Tensor:
        parts = features.split([c * side * side for c, side in self.shapes], dim=1)
        maps = [
            part.unflatten(1, (channels, side, side))
            for part, (channels, side) in zip(parts, self.shapes, strict=True)
        ]
        outputs = self._read(maps, self.linear)
        if self.hidden:
            inner = self._read(maps, self.inner).relu()
            outputs = outputs + self.outer(self.middle(inner).relu())
        return outputs.flatten(1)

    def term_sizes(self, features: Tensor) -> Tensor:
        """Return the sums of the absolute terms of the outputs' linear part, [N,K*G*G]."""
        plain = MapModule(
            self.linear.weight[:, :, 0, 0].detach().abs().numpy(),
            self.linear.bias.detach().abs().numpy(),  # type: ignore[union-attr]
            self.shapes,
            self.grid,
        )
        sizes: Tensor = plain(features.abs())
        return sizes

    def _read(self, maps: Sequence[Tensor], layer: nn.Conv2d) -> Tensor:
        """Return the result of a 1 x 1 layer on the maps, interpolated and joined.

        Each map is multiplied on its own grid; interpolating later gives the same result.
        """
        weights = layer.weight.split([channels for channels, _ in self.shapes], dim=1)
        outputs = layer.bias[:, None, None]  # type: ignore[index]
        for part, weight in zip(maps, weights, strict=True):
            read = nn.functional.conv2d(part, weight)
            side = part.shape[-1]
            if side != self.grid:
                matrix = torch.from_numpy(interpolation(int(side), self.grid)).to(read)
                read = matrix @ read @ matrix.T
            outputs = outputs + read
        return outputs
