"""Taps as maps on a grid: the same from PyTorch, ONNX and the store."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rootstock.backbones.card import pool_tap
from rootstock.backbones.load import build_backbone
from rootstock.backbones.tap_features import TapPart, average_grids, keep_maxima, pool_map
from rootstock.errors import BackboneError
from tests.bundles import SIZE, tiny_backbone


@pytest.mark.parametrize(("side", "grid"), [(7, 7), (14, 7), (10, 7), (4, 7), (3, 1)])
def test_a_grid_is_adaptive_average_pooling(side, grid):
    maps = torch.randn(2, 5, side, side + 1)
    expected = F.adaptive_avg_pool2d(maps, grid).flatten(1)
    torch.testing.assert_close(pool_map(maps, grid), expected, atol=1e-5, rtol=1e-5)


def test_tap_with_grid_is_joined_to_averaged_one():
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


def test_maximum_of_map_is_joined_to_its_mean():
    backbone = tiny_backbone()
    images = torch.randn(3, 3, SIZE, SIZE)
    tap = pool_tap("block1+last", "both")
    assert tap == "block1+block1@max+last+last@max"
    module = backbone.feature_module(tap)
    with torch.inference_mode():
        joined, _ = module.with_maps(images)
        (first, last) = backbone.feature_module("block1+last").with_maps(images)[1]
    expected = [one for part in (first, last) for one in (part.mean((2, 3)), part.amax((2, 3)))]
    torch.testing.assert_close(joined, torch.cat(expected, dim=1), atol=1e-5, rtol=1e-5)
    parts = backbone.features(images, ["last@max", tap])
    torch.testing.assert_close(parts["last@max"], last.amax((2, 3)))
    torch.testing.assert_close(parts[tap], joined)
    assert backbone.width(tap) == joined.shape[1]


def test_map_of_a_maximum_averages_to_the_maximum():
    maps = torch.randn(2, 3, 4, 5)
    maps[0, 1] = 0.0  # every position is at the maximum
    maps[1, 2] = -maps[1, 2].abs() - 1
    maxima = maps.amax(dim=(2, 3))
    kept = keep_maxima(maps, maxima)
    torch.testing.assert_close(kept.mean(dim=(2, 3)), maxima)
    wins = kept != 0
    assert wins.sum() == 5
    torch.testing.assert_close(maps[wins], kept[wins] / 20)


@pytest.mark.parametrize(
    ("pooling", "tap"), [("avg", "block2"), ("max", "block2@max"), ("both", "block2+block2@max")]
)
def test_pooling_is_part_of_stored_feature_names(pooling, tap):
    assert pool_tap("block2", pooling) == tap


def test_features_without_maps_have_no_maximum():
    card = tiny_backbone().card.model_copy(update={"architecture": "mobilenetv3_small_050"})
    backbone = build_backbone(card)
    assert backbone.width("block1@max") == backbone.width("block1")
    with pytest.raises(BackboneError, match=r"no maximum(.|\n)*features.pooling to avg"):
        backbone.width("last@max")


def test_what_has_no_map_has_no_grid():
    with pytest.raises(BackboneError, match="no tap 'last@7'"):
        tiny_backbone().width("last@7")
    assert TapPart(8, 7).width == 392
