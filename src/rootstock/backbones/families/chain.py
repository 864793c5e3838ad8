"""ChainNetwork: a sequence of layers with the interface of a timm network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Tapped:
    """A layer whose output [N,channels,H,W] is a tap, with ``reduction`` input pixels per step."""

    module: str
    num_chs: int
    reduction: int


class ChainNetwork(nn.Module):
    """images [N,3,S,S] -> logits [N,K], by layers that follow each other.

    For networks that timm does not have: the rest of Rootstock uses timm's methods and
    attributes. ``layers`` keep their names, and so do the keys of the weights. ``trunk`` names the
    layers from the image to the last maps, ``pooled`` those from there to the features [N,C], and
    ``logits`` those from the last maps to the logits. ``num_classes`` 0 means no classifier.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        *,
        trunk: Sequence[str],
        pooled: Sequence[str],
        logits: Sequence[str],
        classifier: str,
        taps: Sequence[Tapped],
        width: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.trunk = list(trunk)
        self.pooled = list(pooled)
        self.logits = list(logits)
        self.classifier_name = classifier
        self.feature_info = [vars(tap) for tap in taps]
        self.num_features = taps[-1].num_chs
        self.head_hidden_size = width
        self._convolves = isinstance(self.get_classifier(), nn.Conv2d)
        if not num_classes:
            self.reset_classifier(0)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the last maps [N,C,H,W]."""
        return self._run(self.trunk, images)

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits [N,K] of the last maps, or the features [N,C] that the classifier reads."""
        return self._run(self.pooled if pre_logits else self.logits, maps)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: Sequence[int] | None = None,
        *,
        intermediates_only: bool = False,
        stop_early: bool = False,
    ) -> Any:
        """Return the maps [N,C,H,W] of the taps ``indices`` (default: all), after the last maps."""
        ends = [info["module"] for info in self.feature_info]
        names = {ends[index] for index in (range(len(ends)) if indices is None else indices)}
        tapped: list[Tensor] = []
        maps = images
        for name in self.trunk:
            if stop_early and len(tapped) == len(names):
                break
            maps = self.get_submodule(name)(maps)
            if name in names:
                tapped.append(maps)
        return tapped if intermediates_only else (maps, tapped)

    def get_classifier(self) -> nn.Module:
        """Return the last layer with weights."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by one with random weights; for 0 classes, remove it."""
        layer: nn.Module = nn.Identity()
        if num_classes and self._convolves:
            layer = nn.Conv2d(self.head_hidden_size, num_classes, kernel_size=1)
        elif num_classes:
            layer = nn.Linear(self.head_hidden_size, num_classes)
        self.set_submodule(self.classifier_name, layer.to(next(self.parameters()).device))

    def _run(self, names: Sequence[str], values: Tensor) -> Tensor:
        for name in names:
            values = self.get_submodule(name)(values)
        return values
