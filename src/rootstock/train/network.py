"""TransferNet: a backbone up to one tap, and a linear head on its pooled features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rootstock.backbones.catalogue import BackboneCard
from rootstock.backbones.load import Backbone, build_backbone
from rootstock.heads import LinearHead


class TransferNet(nn.Module):
    """images float32[N,3,S,S], prepared -> logits [N,K]."""

    def __init__(self, extractor: nn.Module, head: nn.Linear, *, tap: str) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = head
        self.tap = tap

    @classmethod
    def build(cls, backbone: Backbone, *, tap: str, head: LinearHead) -> TransferNet:
        """Join a backbone and a fitted head; the backbone is copied."""
        n_classes, width = head.weights.shape
        layer = nn.Linear(width, n_classes)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(head.weights))
            layer.bias.copy_(torch.from_numpy(head.bias))
        network = cls(backbone.feature_module(tap), layer, tap=tap)
        return network.to(backbone.device).eval()

    @classmethod
    def from_card(cls, card: dict[str, Any], *, tap: str, n_classes: int) -> TransferNet:
        """The network of a bundle with random weights, built without any download."""
        backbone = build_backbone(BackboneCard.model_validate(card))
        width = backbone.width(tap)
        zeros = LinearHead(
            np.zeros((n_classes, width), np.float32), np.zeros(n_classes, np.float32)
        )
        return cls.build(backbone, tap=tap, head=zeros)

    def features(self, images: Tensor) -> Tensor:
        """Features [N,D] that the head reads."""
        return self.extractor(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))
