"""TransferNet: a backbone up to one tap, and a head on its pooled features."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rootstock.backbones.card import BackboneCard
from rootstock.backbones.load import Backbone, build_backbone
from rootstock.backbones.tap_features import TapPart, average_grids, average_width
from rootstock.heads.linear import Head, LinearHead, MapHead, MlpHead
from rootstock.heads.maps import MapModule


class TransferNet(nn.Module):
    """Prepared images float32[N,3,S,S] -> outputs [N,K]."""

    def __init__(self, extractor: Any, head: nn.Module, *, tap: str) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = head
        self.tap = tap

    @property
    def parts(self) -> tuple[TapPart, ...]:
        """The parts of the features."""
        parts: tuple[TapPart, ...] = self.extractor.parts
        return parts

    @property
    def n_outputs(self) -> int:
        """The number of outputs K."""
        if isinstance(self.head, MapModule):
            return self.head.n_outputs
        return self._layers[-1].out_features

    @property
    def hidden(self) -> int:
        """Width of the head's hidden layer, or of its decoder; 0 for a linear head."""
        if isinstance(self.head, MapModule):
            return self.head.hidden
        return self._layers[0].out_features if len(self._layers) > 1 else 0

    @property
    def n_networks(self) -> int:
        """The number of averaged networks."""
        return 1

    @property
    def adds_up_maps(self) -> bool:
        """Whether an output is a sum over the positions of the maps that it reads."""
        return not isinstance(self.head, MapModule)

    @property
    def features_per_weight(self) -> float:
        """Mean number of features per weight of the head's first layer, at least 1."""
        if isinstance(self.head, MapModule):
            return sum(part.width for part in self.parts) / average_width(self.parts)
        return 1.0

    def measure(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs [N,K], features [N,D] as `describe` gives them, and sizes [N,K].

        A size is the sum of the absolute terms of an output.
        """
        features = self.features(images)
        return self.head(features), self.describe(features), self._term_sizes(features)

    def _term_sizes(self, features: Tensor) -> Tensor:
        if isinstance(self.head, MapModule):
            return self.head.term_sizes(features)
        sizes = features.abs()
        for layer in self._layers:
            sizes = sizes @ layer.weight.abs().T + layer.bias.abs()
        return sizes

    @property
    def _layers(self) -> list[nn.Linear]:
        """Return the linear layers of the head, with a ReLU between each two."""
        return [module for module in self.head.modules() if isinstance(module, nn.Linear)]

    @classmethod
    def build(cls, backbone: Backbone, *, tap: str, head: Head) -> TransferNet:
        """Join a backbone and a fitted head; the backbone is copied."""
        if isinstance(head, MapHead):
            network = cls(backbone.feature_module(tap), head.module(), tap=tap)
            return network.to(backbone.device).eval()
        layers = [head.inner, head.outer] if isinstance(head, MlpHead) else [head]
        modules = [_linear(layer) for layer in layers]
        joined = (
            modules[0] if len(modules) == 1 else nn.Sequential(modules[0], nn.ReLU(), *modules[1:])
        )
        network = cls(backbone.feature_module(tap), joined, tap=tap)
        return network.to(backbone.device).eval()

    @classmethod
    def from_card(
        cls, card: dict[str, Any], *, tap: str, n_outputs: int, hidden: int = 0, grid: int = 0
    ) -> TransferNet:
        """Return the network of a bundle with random weights, built without downloads.

        ``grid``: outputs for this many positions along each side; 0: for the whole image.
        """
        backbone = build_backbone(BackboneCard.model_validate(card))
        if grid:
            shapes = [(part.channels, part.grid) for part in backbone.parts(tap)]
            blank = MapHead.blank(n_outputs // grid**2, shapes, grid, hidden=hidden)
            return cls.build(backbone, tap=tap, head=blank)
        widths = [backbone.width(tap), *([hidden] if hidden else []), n_outputs]
        layers = [
            LinearHead(np.zeros((after, before), np.float32), np.zeros(after, np.float32))
            for before, after in itertools.pairwise(widths)
        ]
        head = layers[0] if len(layers) == 1 else MlpHead(*layers)
        return cls.build(backbone, tap=tap, head=head)

    def features(self, images: Tensor) -> Tensor:
        """Return the features [N,D] that the head reads."""
        return self.extractor(images)

    def describe(self, features: Tensor) -> Tensor:
        """Return the features for comparing images, with maps averaged."""
        return average_grids(features, self.parts)

    def read(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return outputs [N,K], features [N,D] as `describe` gives them, and the maps of each tap.

        The maps [N,c,h,w] are those of `TapFeatures.with_maps`.
        """
        features, maps = self.extractor.with_maps(images)
        return self.head(features), self.describe(features), maps

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def _linear(head: LinearHead) -> nn.Linear:
    n_outputs, width = head.weights.shape
    layer = nn.Linear(width, n_outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weights))
        layer.bias.copy_(torch.from_numpy(head.bias))
    return layer
