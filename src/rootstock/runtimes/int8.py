"""An ONNX file in whole numbers of 8 bits: half the time on processors with VNNI, or about that.

Needs the package onnx, and no torch. What it writes is opened like any other ONNX file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CALIBRATION_IMAGES = 40
"""Images whose range the activations are fitted to. On ants_bees 16, 40 and 80 left the same
distance to float32 (.09, .08 and .09 of logits around 5); 80 cost 6.7 s of processor time."""
BATCH_IMAGES = 8
FEATURES = "features"
"""The output that a head reads. The head itself stays in float32: it is a thousandth of the work,
so it can be replaced, and its rounding would be the last one before an answer."""
_ARITHMETIC_OF_SHAPES = ("Shape", "Constant")


def write_int8(source: Path, target: Path, images: Sequence[np.ndarray]) -> None:
    """Write the ONNX file ``source`` in int8 to ``target``.

    ``images`` float32[3,S,S] are prepared images of the kind that the network is used for. Weights
    are int8 by output channel, activations uint8 by tensor within the range of the images (Jacob et
    al. 2018); the file states both types in QDQ form. The same input gives the same bytes.
    Raises:
        Exception: ONNX Runtime cannot translate the network; of which kind is not documented.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _CalibrationImages(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_exact_nodes(onnx.load(str(prepared)).graph),
        )


class _CalibrationImages:
    """What ONNX Runtime calls a calibration data reader."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self._batches: Iterator[np.ndarray] = (
            np.stack(images[start : start + BATCH_IMAGES])
            for start in range(0, len(images), BATCH_IMAGES)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _exact_nodes(graph: Any) -> list[str]:
    """Return the names of the nodes that stay as they are.

    Those of the head, and those that compute with shapes: a network with the padding of TensorFlow
    computes its margins from the size of the image, and a margin that is rounded to one of 256
    steps shifts all that follows.
    """
    constant = {one.name for one in graph.initializer}
    of_shapes: set[str] = set()
    of_features = {FEATURES}
    exact = []
    for node in graph.node:
        inputs = {name for name in node.input if name}
        if node.op_type in _ARITHMETIC_OF_SHAPES or inputs <= of_shapes | constant:
            of_shapes.update(node.output)
            exact.append(node.name)
        elif inputs & of_features:
            of_features.update(node.output)
            exact.append(node.name)
    return exact
