"""TransferNet: a backbone up to one tap, and a head on its pooled features."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rootstock.backbones.card import BackboneCard
from rootstock.backbones.load import Backbone, build_backbone
from rootstock.backbones.tap_features import TapPart, average_grids
from rootstock.heads.linear import Head, LinearHead, MlpHead


class TransferNet(nn.Module):
    """images float32[N,3,S,S], prepared -> outputs [N,K]."""

    def __init__(self, extractor: Any, head: nn.Module, *, tap: str) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = head
        self.tap = tap

    @property
    def parts(self) -> tuple[TapPart, ...]:
        """What the features are made of."""
        parts: tuple[TapPart, ...] = self.extractor.parts
        return parts

    @property
    def head_layers(self) -> list[nn.Linear]:
        """The linear layers of the head, with a ReLU between two."""
        return [module for module in self.head.modules() if isinstance(module, nn.Linear)]

    @property
    def n_outputs(self) -> int:
        """K"""
        return self.head_layers[-1].out_features

    @property
    def hidden(self) -> int:
        """Width of the head's hidden layer; 0 of a linear head."""
        return self.head_layers[0].out_features if len(self.head_layers) > 1 else 0

    @classmethod
    def build(cls, backbone: Backbone, *, tap: str, head: Head) -> TransferNet:
        """Join a backbone and a fitted head; the backbone is copied."""
        layers = [head.inner, head.outer] if isinstance(head, MlpHead) else [head]
        modules = [_linear(layer) for layer in layers]
        joined = (
            modules[0] if len(modules) == 1 else nn.Sequential(modules[0], nn.ReLU(), *modules[1:])
        )
        network = cls(backbone.feature_module(tap), joined, tap=tap)
        return network.to(backbone.device).eval()

    @classmethod
    def from_card(
        cls, card: dict[str, Any], *, tap: str, n_outputs: int, hidden: int = 0
    ) -> TransferNet:
        """The network of a bundle with random weights, built without any download."""
        backbone = build_backbone(BackboneCard.model_validate(card))
        widths = [backbone.width(tap), *([hidden] if hidden else []), n_outputs]
        layers = [
            LinearHead(np.zeros((after, before), np.float32), np.zeros(after, np.float32))
            for before, after in itertools.pairwise(widths)
        ]
        head = layers[0] if len(layers) == 1 else MlpHead(*layers)
        return cls.build(backbone, tap=tap, head=head)

    def features(self, images: Tensor) -> Tensor:
        """Features [N,D] that the head reads."""
        return self.extractor(images)

    def describe(self, features: Tensor) -> Tensor:
        """Return what tells images apart: those features, with maps averaged."""
        return average_grids(features, self.parts)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def _linear(head: LinearHead) -> nn.Linear:
    n_outputs, width = head.weights.shape
    layer = nn.Linear(width, n_outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weights))
        layer.bias.copy_(torch.from_numpy(head.bias))
    return layer
