import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from rootstock.backbones import to_onnx
from rootstock.backbones.to_onnx import write_onnx
from rootstock.errors import BackboneError


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.body[1].running_mean.fill_(0.5)

    def forward(self, images):
        features = self.body(images)
        return features.mean((2, 3)), features.amax((2, 3))


@pytest.fixture
def untraceable(monkeypatch):
    def fail(*_):
        raise RuntimeError("this torch has no TorchScript")

    monkeypatch.setattr(to_onnx, "_trace", fail)


def test_what_cannot_be_traced_is_exported_other_way(tmp_path, untraceable):
    torch.manual_seed(0)
    module = Small()
    write_onnx(module, tmp_path / "n.onnx", input_size=16, outputs=("mean", "top"))
    images = torch.randn(5, 3, 16, 16)
    session = onnxruntime.InferenceSession(tmp_path / "n.onnx")
    assert [output.name for output in session.get_outputs()] == ["mean", "top"]
    with torch.no_grad():
        expected = module(images)
    for found, wanted in zip(session.run(None, {"images": images.numpy()}), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_neither_way_writes_this_machine_s_paths(tmp_path, untraceable):
    write_onnx(Small(), tmp_path / "n.onnx", input_size=16, outputs=("mean", "top"))
    assert __file__.encode() not in (tmp_path / "n.onnx").read_bytes()


class DependsOnData(nn.Module):
    def forward(self, images):
        return images[images > 0.5].reshape(images.shape[0] if images.sum() > 3 else 1, -1), images


def test_network_that_cannot_be_exported_is_explained(tmp_path, untraceable):
    with pytest.raises(BackboneError, match="cannot export this network"):
        write_onnx(DependsOnData(), tmp_path / "n.onnx", input_size=16, outputs=("a", "b"))
