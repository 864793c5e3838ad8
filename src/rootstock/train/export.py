"""A TransferNet as one ONNX file that takes any batch size, without a word on the screen."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rootstock.errors import BundleError

if TYPE_CHECKING:
    from rootstock.train.network import TransferNet

_CHATTY_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


class LogitsAndFeatures(nn.Module):
    """images float32[N,3,S,S] -> (logits [N,K], features [N,D] that the head reads)."""

    def __init__(self, network: TransferNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.features(images)
        return self.network.head(features), features


class Outputs(NamedTuple):
    """What PyTorch makes of some images."""

    logits: np.ndarray
    """[N,K]"""
    features: np.ndarray
    """[N,D], as the head reads them"""
    sizes: np.ndarray
    """[N,K]: the sum of the absolute terms of each logit, which rounding errors grow with."""


def torch_outputs(network: TransferNet, images: np.ndarray) -> Outputs:
    """What ``network`` gives for prepared images float32[N,3,S,S]."""
    with torch.inference_mode():
        logits, features = LogitsAndFeatures(network)(torch.from_numpy(images))
        sizes = features.abs()
        for layer in network.head_layers:
            sizes = sizes @ layer.weight.abs().T + layer.bias.abs()
    return Outputs(logits.numpy(), features.numpy(), sizes.numpy())


def export_onnx(network: TransferNet, path: Path, *, input_size: int) -> None:
    """Write ``network`` (on the CPU, in eval mode) to ``path``, weights included.

    Input "images" float32[N,3,S,S], already prepared; outputs "logits" and "features".
    Raises:
        BundleError: torch cannot translate the network.
    """
    # torch.export fixes a dimension whose example is 1, so the example has two images.
    example = torch.zeros(2, 3, input_size, input_size)
    with _silence():
        try:
            program = torch.onnx.export(
                LogitsAndFeatures(network).eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["logits", "features"],
                dynamic_shapes={"images": {0: torch.export.Dim.DYNAMIC}},
            )
        except torch.onnx.OnnxExporterError as error:
            raise BundleError(
                f"torch {torch.__version__} cannot export this network to ONNX: "
                f"{str(error).splitlines()[0]}",
                hint="choose another backbone",
            ) from error
        assert program is not None
        _forget_sources(program.model)
        program.save(path, external_data=False)


def onnx_logits(path: Path, images: np.ndarray) -> list[np.ndarray]:
    """The ONNX file's logits [N,K] of prepared images [N,3,S,S]: in one batch, and one by one.

    Both, because the batch size is what an export most easily freezes.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    together = session.run(["logits"], {"images": images})[0]
    alone = [session.run(["logits"], {"images": one[None]})[0] for one in images]
    return [together, np.concatenate(alone)]


def _forget_sources(model: Any) -> None:
    """Drop the stack traces torch writes into every node: they hold this machine's paths."""
    model.metadata_props.clear()
    for graph in model.graphs():
        graph.metadata_props.clear()
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
    for function in model.functions.values():
        function.metadata_props.clear()
        for node in function:
            node.metadata_props.clear()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
