"""The head of an exported network is replaced, in place of exporting the network again."""

import copy

import numpy as np
import onnx
import pytest
import torch

from rootstock.heads.linear import LinearHead
from rootstock.model.onnx_head import replace_head
from rootstock.runtimes.int8 import write_int8
from rootstock.training.export import export_onnx, onnx_logits
from rootstock.training.network import TransferNet
from tests.bundles import tiny_backbone

SIZE = 64


def build(width, seed):
    backbone, random = tiny_backbone(), np.random.default_rng(seed)
    shape = (width, backbone.width("last"))
    head = LinearHead(*(random.normal(size=s).astype(np.float32) for s in (shape, width)))
    return TransferNet.build(backbone, tap="last", head=head)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(build(3, 0), path, images)
    return path


def head_of(network):
    return [part.detach().numpy() for part in (network.head.weight, network.head.bias)]


@pytest.mark.parametrize("width", [3, 5])
def test_replaced_head_gives_the_logits_of_a_new_export(exported, tmp_path, images, width):
    network = build(width, 1)
    export_onnx(network, tmp_path / "fresh.onnx", images)
    assert replace_head(exported, tmp_path / "model.onnx", *head_of(network))
    for fresh, replaced in zip(
        onnx_logits(tmp_path / "fresh.onnx", images),
        onnx_logits(tmp_path / "model.onnx", images),
        strict=True,
    ):
        np.testing.assert_array_equal(fresh, replaced)
    onnx.checker.check_model(onnx.load(str(tmp_path / "model.onnx")), full_check=True)


def test_head_of_an_int8_network_is_replaced_too(exported, tmp_path, images):
    write_int8(exported, tmp_path / "old.onnx", list(images))
    network = build(3, 2)
    assert replace_head(tmp_path / "old.onnx", tmp_path / "model.onnx", *head_of(network))
    together, _ = onnx_logits(tmp_path / "model.onnx", images)
    exact = network(torch.from_numpy(images)).detach().numpy()
    assert np.corrcoef(together.ravel(), exact.ravel())[0, 1] > 0.99


def test_other_network_is_left_to_be_exported(exported, tmp_path, images):
    weights, bias = head_of(build(3, 1))
    target = tmp_path / "model.onnx"
    assert not replace_head(exported, target, weights[:, 1:], bias)
    deeper = copy.deepcopy(build(3, 1))
    width = weights.shape[1]
    deeper.head = torch.nn.Sequential(
        torch.nn.Linear(width, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3)
    )
    export_onnx(deeper, tmp_path / "deeper.onnx", images)
    assert not replace_head(tmp_path / "deeper.onnx", target, weights, bias)
    assert not target.exists()
