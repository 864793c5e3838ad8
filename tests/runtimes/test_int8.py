"""A network in whole numbers: the same file each time, and no rounding where it would do harm."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rootstock.backbones.to_onnx import write_onnx
from rootstock.data.decode import decode_image
from rootstock.runtimes.int8 import write_int8
from rootstock.runtimes.onnx import onnx_session
from tests.bundles import SIZE, jpeg, tiny_backbone, tiny_bundle


@pytest.fixture(scope="module")
def images():
    preprocess = tiny_backbone().card.preprocess()
    return [preprocess.apply(decode_image(jpeg(seed)).pixels) for seed in range(20)]


def run(path, images):
    return onnx_session(path, threads=1).run(["logits", "features"], {"images": np.stack(images)})


def test_outputs_stay_near_those_of_float32(images, tmp_path):
    write_int8(tiny_bundle() / "model.onnx", tmp_path / "int8.onnx", images[:12])
    exact, rounded = (
        run(p, images[12:]) for p in (tiny_bundle() / "model.onnx", tmp_path / "int8.onnx")
    )
    assert 0 < np.abs(exact[0] - rounded[0]).max() < exact[0].std()
    # The weights are random, and what is left of the features is small.
    assert np.abs(exact[1] - rounded[1]).max() < 0.5 * np.abs(exact[1]).max()


def test_head_stays_in_float32(images, tmp_path):
    write_int8(tiny_bundle() / "model.onnx", tmp_path / "int8.onnx", images[:12])
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    [head] = [node for node in graph.node if "logits" in node.output]
    assert head.op_type == "Gemm"
    assert "features" in head.input
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}


def test_images_are_not_rounded(images, tmp_path):
    """256 steps between the smallest and the largest value are not the 256 values of a pixel."""
    write_int8(tiny_bundle() / "model.onnx", tmp_path / "int8.onnx", images[:12])
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    [first] = [node for node in graph.node if "images" in node.input]
    weights = {one.name for one in graph.initializer if len(one.dims) == 4}
    assert first.op_type == "Conv"
    assert first.input[1] in weights
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [node.name for node in convolutions if node.input[1] in weights] == [first.name]


class Padded(nn.Module):
    """A network that computes its margins from the size of the image, as those of TensorFlow do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 3, 1)
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        side = torch.ceil(torch.tensor(images.shape[-1]) / 2)
        margin = ((side - 1) * 2 + 3 - images.shape[-1]).clamp(min=0).int()
        before = torch.div(margin, 2, rounding_mode="floor")
        padded = nn.functional.pad(
            self.stem(images), [before, margin - before, before, margin - before]
        )
        features = self.conv(padded).relu().mean(dim=(2, 3))
        return self.head(features), features


def test_margins_that_are_computed_are_not_rounded(tmp_path):
    """224 rounded to one of 256 steps up to 225 is another size, and another margin."""
    network = Padded().eval()
    random = np.random.default_rng(0)
    images = [random.normal(size=(3, SIZE, SIZE)).astype(np.float32) for _ in range(4)]
    write_onnx(network, tmp_path / "exact.onnx", input_size=SIZE, outputs=["logits", "features"])
    write_int8(tmp_path / "exact.onnx", tmp_path / "int8.onnx", images)
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    assert "QuantizeLinear" in {node.op_type for node in graph.node}
    exact, rounded = (run(tmp_path / name, images) for name in ("exact.onnx", "int8.onnx"))
    np.testing.assert_allclose(rounded[1], exact[1], rtol=0.05)


def test_another_process_writes_the_same_file(tmp_path):
    """Also with another order of sets, which Python draws for each process."""
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from rootstock.runtimes.int8 import write_int8\n"
        f"images = np.random.default_rng(0).normal(size=(9, 3, {SIZE}, {SIZE}))\n"
        "write_int8(Path(sys.argv[1]), Path(sys.argv[2]), list(images.astype('f4')))"
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code, tiny_bundle() / "model.onnx", tmp_path / seed],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
        )
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
