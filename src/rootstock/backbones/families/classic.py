"""LeNet-5 and ZFNet, which neither timm nor torchvision provides."""

from __future__ import annotations

from torch import nn

from rootstock.backbones.families.chain import ChainNetwork, Tapped


def lenet5(*, num_classes: int = 1000, batch_norm: bool = False) -> ChainNetwork:
    """LeNet-5 for colour images of 32 pixels or more.

    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE 86, 1998. Layer names follow the paper. Differences: three
    input channels; C3 sees all maps of S2; S2 and S4 are plain averages without weights; tanh is
    not scaled; C5's maps are averaged, so larger inputs fit; a linear classifier replaces the
    radial basis functions. ``batch_norm`` adds BatchNorm after each convolution.
    """
    layers = {
        "c1": _convolution(3, 6, 5, activation=nn.Tanh, batch_norm=batch_norm),
        "s2": nn.AvgPool2d(2),
        "c3": _convolution(6, 16, 5, activation=nn.Tanh, batch_norm=batch_norm),
        "s4": nn.AvgPool2d(2),
        "c5": _convolution(16, 120, 5, activation=nn.Tanh, batch_norm=batch_norm),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "f6": nn.Sequential(nn.Linear(120, 84), nn.Tanh()),
        "output": nn.Linear(84, num_classes or 1),
    }
    taps = (Tapped("c1", 6, 1), Tapped("c3", 16, 2), Tapped("c5", 120, 4))
    return _chain(layers, last_maps="c5", taps=taps, width=84, num_classes=num_classes)


def zfnet(
    *,
    num_classes: int = 1000,
    batch_norm: bool = False,
    hidden: int = 4096,
    drop_rate: float = 0.5,
) -> ChainNetwork:
    """ZFNet: AlexNet with a finer first layer, 7 x 7 at stride 2.

    Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014
    (arXiv 1311.2901), figure 3. Differences: no contrast normalization, which ``batch_norm`` (after
    each convolution) replaces today; averages reduce the maps before the first of the two
    ``hidden`` layers to 6 x 6, so inputs other than 224 pixels fit.
    """
    layers = {
        "conv1": _convolution(3, 96, 7, stride=2, padding=1, batch_norm=batch_norm),
        "pool1": nn.MaxPool2d(3, stride=2, padding=1),
        "conv2": _convolution(96, 256, 5, stride=2, batch_norm=batch_norm),
        "pool2": nn.MaxPool2d(3, stride=2, padding=1),
        "conv3": _convolution(256, 384, 3, padding=1, batch_norm=batch_norm),
        "conv4": _convolution(384, 384, 3, padding=1, batch_norm=batch_norm),
        "conv5": _convolution(384, 256, 3, padding=1, batch_norm=batch_norm),
        "pool5": nn.MaxPool2d(3, stride=2),
        "pool": nn.AdaptiveAvgPool2d(6),
        "flatten": nn.Flatten(),
        "fc6": nn.Sequential(nn.Linear(256 * 36, hidden), nn.ReLU(), nn.Dropout(drop_rate)),
        "fc7": nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(drop_rate)),
        "output": nn.Linear(hidden, num_classes or 1),
    }
    taps = (
        Tapped("conv1", 96, 2),
        Tapped("conv2", 256, 8),
        Tapped("conv3", 384, 16),
        Tapped("conv4", 384, 16),
        Tapped("conv5", 256, 16),
    )
    network = _chain(layers, last_maps="pool5", taps=taps, width=hidden, num_classes=num_classes)
    network.apply(_keep_variance)
    return network


def _convolution(
    inputs: int,
    outputs: int,
    size: int,
    *,
    batch_norm: bool,
    stride: int = 1,
    padding: int = 0,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, bias=not batch_norm)
    norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return nn.Sequential(layer, *norm, activation())


def _chain(
    layers: dict[str, nn.Module],
    *,
    last_maps: str,
    taps: tuple[Tapped, ...],
    width: int,
    num_classes: int,
) -> ChainNetwork:
    names = list(layers)
    border = names.index(last_maps) + 1
    return ChainNetwork(
        layers,
        trunk=names[:border],
        pooled=names[border:-1],
        logits=names[border:],
        classifier=names[-1],
        taps=taps,
        width=width,
        num_classes=num_classes,
    )


def _keep_variance(layer: nn.Module) -> None:
    # With PyTorch's default, the signal fades within eight layers without normalization.
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
