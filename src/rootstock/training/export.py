"""Export a TransferNet as an ONNX file, and compute the expected outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rootstock.backbones.to_onnx import write_onnx

if TYPE_CHECKING:
    from rootstock.training.network import TransferNet


MAP_TOLERANCE = 1e-4
"""Largest difference of a map's mean from the feature, relative to the largest feature."""


class NetworkOutputs(nn.Module):
    """Images float32[N,3,S,S] -> logits [N,K], features [N,D] for comparing images, and maps.

    The maps [N,c,h,w] are those whose means are the features, for each tap of the network;
    ``with_maps`` False: no maps.
    """

    def __init__(self, network: TransferNet, *, with_maps: bool) -> None:
        super().__init__()
        self.network = network
        self.with_maps = with_maps

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs, features, maps = self.network.read(images)
        return outputs, features, *(maps if self.with_maps else ())


class TorchOutputs(NamedTuple):
    """PyTorch's outputs for some images."""

    logits: np.ndarray
    """[N,K]"""
    features: np.ndarray
    """[N,D], as the head reads them, with maps averaged"""
    sizes: np.ndarray
    """[N,K]: the sum of each logit's absolute terms; rounding errors are proportional to it."""


def torch_outputs(network: TransferNet, images: np.ndarray) -> TorchOutputs:
    """Return the outputs of ``network`` for prepared images float32[N,3,S,S]."""
    with torch.inference_mode():
        logits, features, sizes = network.measure(torch.from_numpy(images))
    return TorchOutputs(logits.numpy(), features.numpy(), sizes.numpy())


def export_onnx(network: TransferNet, path: Path, images: np.ndarray) -> None:
    """Write ``network`` (on the CPU, in eval mode) to ``path``, weights included.

    Input "images" float32[N,3,S,S], already prepared, such as ``images``; outputs "logits" and
    "features", and "map0", "map1", ... of the taps if the features are means of maps.
    Raises:
        BackboneError: torch cannot translate the network.
    """
    n_maps = count_maps(network, images)
    module = NetworkOutputs(network, with_maps=n_maps > 0)
    outputs = ["logits", "features", *(f"map{number}" for number in range(n_maps))]
    write_onnx(module, path, input_size=images.shape[-1], outputs=outputs)


def count_maps(network: TransferNet, images: np.ndarray) -> int:
    """Return the number of maps whose means are the features of prepared images; 0 if not all are.

    Token networks have none, and some networks have layers after the pooling.
    """
    if not network.adds_up_maps:
        return 0
    with torch.inference_mode():
        _, features, maps = network.read(torch.from_numpy(images))
        return len(maps) if are_means(features, maps) else 0


def are_means(features: Tensor, maps: Sequence[Tensor]) -> bool:
    """Return whether features [N,D] are the means of maps [N,c,h,w] over their positions."""
    if not maps or any(part.ndim != 4 for part in maps):
        return False
    means = torch.cat([part.mean(dim=(2, 3)) for part in maps], dim=1)
    if means.shape != features.shape:
        return False
    allowed = MAP_TOLERANCE * max(1.0, float(features.abs().max()))
    return float((means - features).abs().max()) <= allowed


def onnx_logits(path: Path, images: np.ndarray) -> list[np.ndarray]:
    """Return the ONNX file's logits [N,K] of images [N,3,S,S]: in one batch, and one by one.

    Both, because an export may fix the batch size by mistake.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    together = session.run(["logits"], {"images": images})[0]
    alone = [session.run(["logits"], {"images": one[None]})[0] for one in images]
    return [together, np.concatenate(alone)]
