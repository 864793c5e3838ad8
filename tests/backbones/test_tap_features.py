"""Taps as maps on a grid: the same from PyTorch, ONNX and the store."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rootstock.backbones.tap_features import TapPart, average_grids, pool_map
from rootstock.errors import BackboneError
from tests.bundles import SIZE, tiny_backbone


@pytest.mark.parametrize(("side", "grid"), [(7, 7), (14, 7), (10, 7), (4, 7), (3, 1)])
def test_a_grid_is_adaptive_average_pooling(side, grid):
    maps = torch.randn(2, 5, side, side + 1)
    expected = F.adaptive_avg_pool2d(maps, grid).flatten(1)
    torch.testing.assert_close(pool_map(maps, grid), expected, atol=1e-5, rtol=1e-5)


def test_a_tap_with_a_grid_is_joined_to_an_averaged_one():
    backbone = tiny_backbone()
    images = torch.randn(3, 3, SIZE, SIZE)
    name = backbone.tap_names[-2]
    tap = f"{name}@2+last"
    with torch.inference_mode():
        joined = backbone.feature_module(tap)(images)
    parts = backbone.features(images, [f"{name}@2", "last", name])
    torch.testing.assert_close(joined, torch.cat([parts[f"{name}@2"], parts["last"]], dim=1))
    assert joined.shape[1] == backbone.width(tap)
    means = average_grids(joined, backbone.parts(tap))
    torch.testing.assert_close(means, torch.cat([parts[name], parts["last"]], dim=1))
    np.testing.assert_allclose(average_grids(joined.numpy(), backbone.parts(tap)), means)


def test_what_has_no_map_has_no_grid():
    with pytest.raises(BackboneError, match="no tap 'last@7'"):
        tiny_backbone().width("last@7")
    assert TapPart(8, 7).width == 392
