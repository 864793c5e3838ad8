"""Products of codes by ONNX Runtime: the file equals onnx's, and the products are exact."""

import numpy as np
from onnx import TensorProto, helper

from rootstock.runtimes.onnx import _PRODUCT, product_session


def test_file_of_the_product_is_what_onnx_writes():
    node = helper.make_node("MatMulInteger", ["A", "B"], ["Y"])
    tensors = [("A", TensorProto.UINT8, "MK"), ("B", TensorProto.INT8, "KN")]
    first, second = (helper.make_tensor_value_info(n, kind, list(s)) for n, kind, s in tensors)
    output = helper.make_tensor_value_info("Y", TensorProto.INT32, ["M", "N"])
    graph = helper.make_graph([node], "g", [first, second], [output])
    opset = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    assert model.SerializeToString() == _PRODUCT


def test_products_of_the_largest_codes_are_exact():
    # With 7 and 8 bits, sums of two products that are kept in 16 bits would overflow.
    first = np.full((1, 1280), 127, np.uint8)
    second = np.repeat(np.array([[127, -127, 3]], np.int8), 1280, axis=0)
    (products,) = product_session().run(None, {"A": first, "B": second})
    assert products.tolist() == [[127 * 127 * 1280, -127 * 127 * 1280, 127 * 3 * 1280]]
