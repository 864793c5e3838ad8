"""Access to a network's inside: gradients at any tap, for images in [0, 1]. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rootstock.data.preprocess import Preprocess
from rootstock.model.bundle import ModelBundle
from rootstock.model.engine import load_network
from rootstock.training.network import TransferNet


@dataclass(frozen=True)
class Lens:
    """A network in eval mode with frozen weights, and the normalization of its images."""

    network: TransferNet
    preprocess: Preprocess

    @classmethod
    def open(cls, bundle: ModelBundle) -> Lens:
        """Open the network of a model."""
        network = load_network(bundle).requires_grad_(False)
        for module in network.modules():
            if hasattr(module, "inplace"):
                setattr(module, "inplace", False)  # noqa: B010 - hooks need what is overwritten
        return cls(network, bundle.preprocess)

    @property
    def backbone(self) -> nn.Module:
        """The backbone of the network, up to its taps."""
        module: nn.Module = self.network.extractor.module
        return module

    @property
    def n_taps(self) -> int:
        """The number of taps that have maps."""
        return len(self.network.extractor.module.feature_info)

    def normalise(self, images: Tensor) -> Tensor:
        """Turn images [N,3,S,S] in [0, 1] into network inputs."""
        mean, std = (
            torch.tensor(part, dtype=images.dtype)[:, None, None]
            for part in (self.preprocess.mean, self.preprocess.std)
        )
        return (images - mean) / std

    def outputs(self, images: Tensor) -> Tensor:
        """Return outputs [N,K] of images in [0, 1]."""
        outputs: Tensor = self.network(self.normalise(images))
        return outputs

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps [N,c,h,w] of each tap of images in [0, 1], shallow to deep."""
        maps: list[Tensor] = self.network.extractor.module.forward_intermediates(
            self.normalise(images), indices=list(range(self.n_taps)), intermediates_only=True
        )
        return maps

    def map_at(self, images: Tensor, tap: int) -> Tensor:
        """Return the maps [N,c,h,w] of one tap, without computing deeper layers."""
        (maps,) = self.network.extractor.module.forward_intermediates(
            self.normalise(images), indices=[tap], intermediates_only=True, stop_early=True
        )
        return torch.as_tensor(maps)


def to_tensor(view: np.ndarray) -> Tensor:
    """Return uint8[S,S,3] as float32[1,3,S,S] in [0, 1]."""
    return torch.from_numpy(view.copy()).permute(2, 0, 1)[None].float() / 255


def to_view(image: Tensor) -> np.ndarray:
    """Return float[1,3,S,S] in [0, 1] as uint8[S,S,3]."""
    pixels = image.detach()[0].clamp(0, 1).permute(1, 2, 0) * 255
    return pixels.round().byte().numpy()


@contextmanager
def guided(lens: Lens) -> Iterator[None]:
    """Let only positive gradients pass each activation (Springenberg et al. 2015)."""
    from timm.layers import activations

    def keep_positive(
        _module: nn.Module, grad_input: tuple[Tensor, ...], _grad_output: object
    ) -> tuple[Tensor, ...]:
        return tuple(one.clamp(min=0) if one is not None else one for one in grad_input)

    kinds = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, activations.Swish)
    hooks = [
        module.register_full_backward_hook(keep_positive)
        for module in lens.network.modules()
        if isinstance(module, kinds)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def guided_gradient(lens: Lens, view: np.ndarray, output: int) -> np.ndarray:
    """Return float32[S,S]: the pixels of a view uint8[S,S,3] that raise an output.

    The result is the guided gradient times the distance of each pixel to the mean colour, so areas
    without content stay empty.
    """
    image = to_tensor(view).requires_grad_()
    with guided(lens):
        (gradient,) = torch.autograd.grad(lens.outputs(image)[0, output], image)
    content = image.detach() - image.detach().mean(dim=(2, 3), keepdim=True)
    return (gradient * content).abs().sum(dim=1)[0].numpy()


def receptive_field(lens: Lens, tap: int, *, share: float = 0.01) -> int:
    """Return the side in pixels of the area that a middle position of a tap's map sees.

    This is the effective receptive field (Luo et al. 2016): the area where the gradient of the
    position is at least ``share`` of its maximum, over four images of noise.
    """
    side = lens.preprocess.input_size
    chance = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, side, side, generator=chance).requires_grad_()
    maps = lens.map_at(images, tap)
    middle = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
    (gradient,) = torch.autograd.grad(middle.square().sum(), images)
    strength = gradient.abs().sum(dim=(0, 1))
    rows, columns = torch.nonzero(strength >= share * strength.max(), as_tuple=True)
    return int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1
