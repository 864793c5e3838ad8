"""A network with TensorFlow's padding is exported with constant margins."""

from collections import Counter

import numpy as np
import onnx
import pytest
import timm
import torch
from timm.layers import Conv2dSame

from rootstock.backbones.fixed_padding import fix_padding
from rootstock.backbones.to_onnx import write_onnx
from rootstock.runtimes.onnx import onnx_session


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("test_efficientnet", pad_type="same", num_classes=0).eval()


@pytest.mark.parametrize("size", [64, 75])
def test_exported_network_has_no_nodes_for_padding(network, tmp_path, size):
    path = tmp_path / "model.onnx"
    write_onnx(network, path, input_size=size, outputs=["features"])
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert kinds["Conv"] > 5
    assert not kinds.keys() & {"Pad", "Shape", "BatchNormalization"}
    images = torch.randn(3, 3, size, size)
    with torch.inference_mode():
        expected = network(images).numpy()
    run = onnx_session(path).run
    for batch in (images, images[:1]):
        found = run(["features"], {"images": batch.numpy()})[0]
        np.testing.assert_allclose(found, expected[: len(batch)], atol=1e-4)


def test_network_that_is_exported_does_not_change(network):
    example = torch.zeros(1, 3, 64, 64)
    before = {name: type(one) for name, one in network.named_modules()}
    fixed = fix_padding(network, example)
    assert {name: type(one) for name, one in network.named_modules()} == before
    assert Conv2dSame in before.values()
    with torch.inference_mode():
        images = torch.randn(2, 3, 64, 64)
        assert torch.equal(fixed(images), network(images))


def test_other_networks_are_not_copied():
    network = timm.create_model("test_efficientnet", num_classes=0)
    assert fix_padding(network, torch.zeros(1, 3, 64, 64)) is network
