"""Replace the head of an exported network: its backbone need not be exported or rounded again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FEATURES, LOGITS = "features", "logits"


def replace_head(source: Path, target: Path, weights: np.ndarray, bias: np.ndarray) -> bool:
    """Write the ONNX file ``source`` with another linear head; return whether that is possible.

    The head has ``weights`` float32[K,D] and ``bias`` float32[K]; the number of outputs K may
    change. It is possible if the logits are one layer in float32 on the features, which then are
    also the features of the new head.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(source))
    constants = {one.name: one for one in model.graph.initializer}
    layer = next((node for node in model.graph.node if LOGITS in node.output), None)
    if layer is None or layer.op_type != "Gemm" or layer.input[0] != FEATURES:
        return False
    options = {one.name: onnx.helper.get_attribute_value(one) for one in layer.attribute}
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    if plain | options != plain or len(layer.input) != 3 or not {*layer.input[1:]} <= {*constants}:
        return False
    old = [numpy_helper.to_array(constants[name]) for name in layer.input[1:]]
    if old[0].dtype != np.float32 or old[0].shape[1] != weights.shape[1]:
        return False
    for name, values in zip(layer.input[1:], (weights, bias), strict=True):
        given = numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name)
        constants[name].CopyFrom(given)
    for output in model.graph.output:
        if output.name == LOGITS:
            output.type.tensor_type.shape.dim[1].dim_value = len(bias)
    onnx.save(model, str(target))
    return True
