"""A TransferNet as ONNX file, and what it must answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rootstock.backbones.to_onnx import write_onnx

if TYPE_CHECKING:
    from rootstock.train.network import TransferNet


class LogitsAndFeatures(nn.Module):
    """images float32[N,3,S,S] -> (logits [N,K], features [N,D] that the head reads)."""

    def __init__(self, network: TransferNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.features(images)
        return self.network.head(features), features


class TorchOutputs(NamedTuple):
    """What PyTorch makes of some images."""

    logits: np.ndarray
    """[N,K]"""
    features: np.ndarray
    """[N,D], as the head reads them"""
    sizes: np.ndarray
    """[N,K]: the sum of the absolute terms of each logit, which rounding errors grow with."""


def torch_outputs(network: TransferNet, images: np.ndarray) -> TorchOutputs:
    """What ``network`` gives for prepared images float32[N,3,S,S]."""
    with torch.inference_mode():
        logits, features = LogitsAndFeatures(network)(torch.from_numpy(images))
        sizes = features.abs()
        for layer in network.head_layers:
            sizes = sizes @ layer.weight.abs().T + layer.bias.abs()
    return TorchOutputs(logits.numpy(), features.numpy(), sizes.numpy())


def export_onnx(network: TransferNet, path: Path, *, input_size: int) -> None:
    """Write ``network`` (on the CPU, in eval mode) to ``path``, weights included.

    Input "images" float32[N,3,S,S], already prepared; outputs "logits" and "features".
    Raises:
        BackboneError: torch cannot translate the network.
    """
    module = LogitsAndFeatures(network)
    write_onnx(module, path, input_size=input_size, outputs=["logits", "features"])


def onnx_logits(path: Path, images: np.ndarray) -> list[np.ndarray]:
    """The ONNX file's logits [N,K] of prepared images [N,3,S,S]: in one batch, and one by one.

    Both, because the batch size is what an export most easily freezes.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    together = session.run(["logits"], {"images": images})[0]
    alone = [session.run(["logits"], {"images": one[None]})[0] for one in images]
    return [together, np.concatenate(alone)]
