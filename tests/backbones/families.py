"""The families of docs/explanation/backbones.md with random weights and small inputs, by card."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rootstock.backbones.create import create_module
from rootstock.backbones.load import Backbone, load_backbone


@dataclass(frozen=True)
class Family:
    """``architecture`` is the documented one; ``kwargs`` and ``size`` keep the tests fast,
    unless the family is ``heavy`` anyway.
    """

    name: str
    architecture: str
    size: int
    kwargs: dict[str, Any] = field(default_factory=dict)
    heavy: bool = False


FAMILIES = [
    Family("LeNet-5", "lenet5", 40),
    Family("AlexNet", "torchvision/alexnet", 95, heavy=True),
    Family("ZFNet", "zfnet", 96, {"hidden": 64}),
    Family("VGG-16", "vgg16", 32, {"mlp_ratio": 0.01}),
    Family("VGG-19", "vgg19", 32, {"mlp_ratio": 0.01}, heavy=True),
    Family("GoogLeNet", "torchvision/googlenet", 32),
    Family("Inception v3", "inception_v3", 75, heavy=True),
    # Zeros at the end of residual branches would keep gradients from the rest of the branch.
    Family("ResNet", "resnet18", 32, {"zero_init_last": False}),
    Family("ResNeXt", "resnext50_32x4d", 32, {"zero_init_last": False}, heavy=True),
    Family("DenseNet", "densenet121", 32, heavy=True),
    Family("Xception", "legacy_xception", 32, heavy=True),
    Family("MobileNet v1", "mobilenetv1_100", 64),
    Family("MobileNet v2", "mobilenetv2_050", 64),
    Family("MobileNet v3", "mobilenetv3_small_050", 64),
    Family("EfficientNet", "efficientnet_b0", 64),
    Family("SqueezeNet", "torchvision/squeezenet1_0", 64),
    Family("ConvNeXt", "convnext_atto", 64),
    Family("ViT", "vit_tiny_patch16_224", 48, {"depth": 4}),
]
CLASSES = 5


def images(family: Family, count: int = 8) -> Tensor:
    """Return prepared images float32[count,3,S,S]: grain around a different shade in each."""
    generator = torch.Generator().manual_seed(0)
    shade = torch.randn(count, 3, 1, 1, generator=generator)
    grain = torch.randn(count, 3, family.size, family.size, generator=generator)
    return shade + grain


def build(family: Family) -> nn.Module:
    """Return the network with random weights, in eval mode, with BatchNorm fitted to `images`."""
    torch.manual_seed(0)
    module = create_module(family.architecture, num_classes=CLASSES, **family.kwargs)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 1.0  # one batch is enough
    with torch.no_grad():
        module.train()(images(family))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return module.eval()


def write(family: Family, module: nn.Module, folder: Path) -> Path:
    """Write weights and their card, like a user who brings weights."""
    path = folder / f"{family.architecture.replace('/', '-')}.safetensors"
    save_file(module.state_dict(), path)
    card = {
        "architecture": family.architecture,
        "architecture_kwargs": family.kwargs,
        "num_classes": CLASSES,
        "input_size": [3, family.size, family.size],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "pretrained_on": "nothing",
        "license": "CC0-1.0",
    }
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


@dataclass(frozen=True)
class Case:
    """A family's backbone as loaded from a file, its source module, and images for it."""

    family: Family
    source: Any
    backbone: Backbone
    images: Tensor


def prepare(family: Family, folder: Path) -> Case:
    """Build, write, and load; then remove the file, because AlexNet's is large."""
    module = build(family)
    path = write(family, module, folder)
    backbone = load_backbone(str(path), "")
    path.unlink()
    return Case(family, module, backbone, images(family))
