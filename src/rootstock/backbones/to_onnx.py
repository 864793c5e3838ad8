"""Write a network as one ONNX file that accepts any batch size, without console output."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rootstock.backbones.fixed_padding import fix_padding
from rootstock.errors import BackboneError
from rootstock.system.output import divert_stdout

EXPORT = 2
"""Increased whenever a network is written in another way, for files that are kept."""
_CHATTY_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def write_onnx(module: nn.Module, path: Path, *, input_size: int, outputs: Sequence[str]) -> None:
    """Write ``module`` (on the CPU, in eval mode) to ``path``, including its weights.

    The input is "images" float32[N,3,S,S], already prepared. The outputs are named in their order.

    Raises:
        BackboneError: torch cannot translate the network.
    """
    # A dimension whose example is 1 would be fixed, so the example has two images.
    example = torch.zeros(2, 3, input_size, input_size)
    module.eval()
    with _silence():
        try:
            _trace(fix_padding(module, example), example, path, outputs)
        except Exception:  # noqa: BLE001 - whatever tracing cannot do, the other way may
            _translate(module, example, path, outputs)


def _trace(module: nn.Module, example: torch.Tensor, path: Path, outputs: Sequence[str]) -> None:
    """Export by TorchScript, which takes a second; the new exporter takes ten to thirty."""
    batch = {0: "batch"}
    torch.onnx.export(
        module,
        (example,),
        str(path),
        dynamo=False,
        input_names=["images"],
        output_names=list(outputs),
        dynamic_axes=dict.fromkeys(("images", *outputs), batch),
    )


def _translate(
    module: nn.Module, example: torch.Tensor, path: Path, outputs: Sequence[str]
) -> None:
    """Export by torch.export, if tracing fails or torch has no TorchScript."""
    try:
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_shapes={"images": {0: torch.export.Dim.DYNAMIC}},
        )
    except torch.onnx.OnnxExporterError as error:
        raise BackboneError(
            f"torch {torch.__version__} cannot export this network to ONNX: "
            f"{str(error).splitlines()[0]}",
            hint="choose another backbone",
        ) from error
    assert program is not None
    _forget_sources(program.model)
    program.save(path, external_data=False)


def _forget_sources(model: Any) -> None:
    """Drop the stack traces that torch writes into every node: they contain local paths."""
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
            Path(os.devnull).open("w") as nothing,
            divert_stdout(nothing),  # torch's native code prints whole graphs
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
