"""AlexNet, GoogLeNet, and SqueezeNet from torchvision, which timm does not have.

Their weights keep torchvision's keys.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision import models

from rootstock.backbones.families.chain import ChainNetwork, Tapped


def alexnet(*, num_classes: int = 1000, **kwargs: Any) -> ChainNetwork:
    """AlexNet (Krizhevsky, Sutskever and Hinton 2012) as in arXiv 1404.5997."""
    net = models.alexnet(num_classes=num_classes or 1, **kwargs)
    pooled = ["avgpool", "flatten", *(f"classifier.{n}" for n in range(6))]
    return ChainNetwork(
        {"features": net.features, **_head(net)},
        trunk=_members("features", net.features),
        pooled=pooled,
        logits=[*pooled, "classifier.6"],
        classifier="classifier.6",
        taps=(
            Tapped("features.1", 64, 4),
            Tapped("features.4", 192, 8),
            Tapped("features.7", 384, 16),
            Tapped("features.9", 256, 16),
            Tapped("features.11", 256, 16),
        ),
        width=4096,
        num_classes=num_classes,
    )


def googlenet(*, num_classes: int = 1000, **kwargs: Any) -> ChainNetwork:
    """GoogLeNet, Inception v1 with BatchNorm (Szegedy et al. 2015, arXiv 1409.4842).

    It has no auxiliary classifiers. torchvision's weights expect pixels in [-1, 1], so mean and std
    in their card are 0.5.
    """
    net = models.googlenet(
        num_classes=num_classes or 1,
        aux_logits=False,
        transform_input=False,
        init_weights=False,
        **kwargs,
    )
    names = [name for name, _ in net.named_children()]
    border = names.index("avgpool")
    pooled = ["avgpool", "flatten", "dropout"]
    return ChainNetwork(
        {**dict(net.named_children()), "flatten": nn.Flatten()},
        trunk=names[:border],
        pooled=pooled,
        logits=[*pooled, "fc"],
        classifier="fc",
        taps=(
            Tapped("conv1", 64, 2),
            Tapped("conv3", 192, 4),
            Tapped("inception3b", 480, 8),
            Tapped("inception4e", 832, 16),
            Tapped("inception5b", 1024, 32),
        ),
        width=1024,
        num_classes=num_classes,
    )


def squeezenet1_0(*, num_classes: int = 1000, **kwargs: Any) -> ChainNetwork:
    """SqueezeNet 1.0 (Iandola et al. 2016, arXiv 1602.07360)."""
    net = models.squeezenet1_0(num_classes=num_classes or 1, **kwargs)
    taps = (
        Tapped("features.1", 96, 2),
        Tapped("features.5", 256, 4),
        Tapped("features.10", 512, 8),
        Tapped("features.12", 512, 16),
    )
    return _squeezenet(net, taps, num_classes=num_classes)


def squeezenet1_1(*, num_classes: int = 1000, **kwargs: Any) -> ChainNetwork:
    """SqueezeNet 1.1: as good as 1.0 at less than half its operations."""
    net = models.squeezenet1_1(num_classes=num_classes or 1, **kwargs)
    taps = (
        Tapped("features.1", 64, 2),
        Tapped("features.4", 128, 4),
        Tapped("features.7", 256, 8),
        Tapped("features.12", 512, 16),
    )
    return _squeezenet(net, taps, num_classes=num_classes)


def _squeezenet(net: Any, taps: tuple[Tapped, ...], *, num_classes: int) -> ChainNetwork:
    # The classifier is a convolution before the pooling; features are the maps that it reads.
    return ChainNetwork(
        {"features": net.features, "classifier": net.classifier, "flatten": nn.Flatten()},
        trunk=_members("features", net.features),
        pooled=["classifier.0", "classifier.3", "flatten"],
        logits=[*_members("classifier", net.classifier), "flatten"],
        classifier="classifier.1",
        taps=taps,
        width=512,
        num_classes=num_classes,
    )


def _head(net: Any) -> dict[str, nn.Module]:
    return {"avgpool": net.avgpool, "flatten": nn.Flatten(), "classifier": net.classifier}


def _members(name: str, chain: nn.Sequential) -> list[str]:
    return [f"{name}.{number}" for number in range(len(chain))]
