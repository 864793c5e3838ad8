"""The inside of a network: each method has the property that it is shown for."""

import numpy as np
import pytest
import torch

from rootstock.backbones.load import build_backbone
from rootstock.explain.inside import (
    busiest_channels,
    exciting_patches,
    read_filters,
    strongest_maps,
)
from rootstock.explain.lens import Lens, guided_gradient, receptive_field, to_tensor, to_view
from rootstock.explain.optimise import dream, invert, maximise, total_variation
from rootstock.heads.linear import LinearHead
from rootstock.model.bundle import read_bundle
from rootstock.model.predictor import Predictor
from rootstock.training.network import TransferNet
from tests.bundles import CLASSES, SIZE, jpeg, tiny_backbone, tiny_bundle, write_tiny_bundle


@pytest.fixture(scope="module")
def lens():
    return Lens.open(read_bundle(tiny_bundle()))


@pytest.fixture(scope="module")
def views():
    predictor = Predictor(tiny_bundle())
    return [predictor.prepare(jpeg(seed))[0] for seed in range(6)]


@pytest.fixture(scope="module")
def token_lens(tmp_path_factory):
    """A transformer with random weights: no BatchNorm, tokens instead of maps."""
    card = tiny_backbone().card.model_copy(
        update={"architecture": "test_vit", "architecture_kwargs": {"img_size": SIZE}}
    )
    backbone = build_backbone(card)
    weights = np.random.default_rng(0).normal(size=(len(CLASSES), backbone.width("last")))
    head = LinearHead(weights.astype("f4"), np.zeros(len(CLASSES), "f4"))
    network = TransferNet.build(backbone, tap="last", head=head)
    folder = tmp_path_factory.mktemp("tokens") / "model"
    return Lens.open(write_tiny_bundle(folder, network=network, card=card))


def test_tokens_are_looked_into_like_maps(token_lens, views):
    image = to_tensor(views[0])
    for tap in range(token_lens.n_taps):
        assert token_lens.map_at(image, tap).ndim == 4
        # Each token sees all others.
        assert receptive_field(token_lens, tap, share=1e-9) == SIZE
    assert read_filters(token_lens)[0].shape[-1] == 3
    assert len(strongest_maps(token_lens, views[0], count=2)) == token_lens.n_taps
    blank = np.full((SIZE, SIZE, 3), 120, np.uint8)
    assert not guided_gradient(token_lens, blank, 0).any()
    assert guided_gradient(token_lens, views[0], 0).any()
    end, start = (
        maximise(token_lens, lambda x: token_lens.outputs(x)[0, 1], steps=n) for n in (40, 0)
    )
    assert token_lens.outputs(end)[0, 1] > token_lens.outputs(start)[0, 1]
    dreamt = dream(token_lens, image, token_lens.n_taps - 1)
    assert dreamt.shape == image.shape
    assert invert(token_lens, image, 0, steps=5).shape == image.shape


def test_lens_sees_what_the_predictor_does(lens, views):
    predictor = Predictor(tiny_bundle())
    expected = predictor.outputs(predictor.bundle.preprocess.normalise(views[0][None]))
    np.testing.assert_allclose(lens.outputs(to_tensor(views[0])).numpy(), expected, atol=1e-3)
    np.testing.assert_array_equal(to_view(to_tensor(views[0])), views[0])


@pytest.mark.parametrize("output", range(len(CLASSES)))
def test_maximised_image_raises_its_class(lens, views, output):
    def margin(image):
        outputs = lens.outputs(image)[0]
        return outputs[output] - outputs.mean()

    end = maximise(lens, margin, steps=60)
    assert margin(end) > max(margin(to_tensor(view)) for view in views)
    assert margin(end) > margin(maximise(lens, margin, steps=0))
    assert end.min() >= 0
    assert end.max() <= 1
    torch.testing.assert_close(end, maximise(lens, margin, steps=60))


def test_early_tap_inversion_is_closer_than_late_one(lens, views):
    target = to_tensor(views[0])
    errors = [
        float((invert(lens, target, tap, steps=60) - target).abs().mean())
        for tap in (0, lens.n_taps - 1)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_dream_excites_its_tap_more_than_the_image(lens, views):
    image, tap = to_tensor(views[0]), 1
    dreamt = dream(lens, image, tap)
    assert dreamt.shape == image.shape
    before, after = (float(lens.map_at(one, tap).square().mean()) for one in (image, dreamt))
    assert after > 1.2 * before


def test_guided_gradient_of_a_blank_image_is_blank(lens, views):
    blank = np.full((SIZE, SIZE, 3), 120, np.uint8)
    assert not guided_gradient(lens, blank, 0).any()
    found = guided_gradient(lens, views[0], 0)
    assert found.shape == (SIZE, SIZE)
    assert found.max() > 0


def test_guided_gradients_leave_the_network_as_it_was(lens, views):
    image = to_tensor(views[1]).requires_grad_()
    plain = [torch.autograd.grad(lens.outputs(image)[0, 0], image)[0] for _ in range(1)]
    guided_gradient(lens, views[1], 0)
    again = torch.autograd.grad(lens.outputs(image)[0, 0], image)[0]
    torch.testing.assert_close(plain[0], again)


def test_receptive_field_grows_with_depth(lens):
    fields = [receptive_field(lens, tap) for tap in range(lens.n_taps)]
    assert fields == sorted(fields)
    assert fields[0] < fields[-1] <= SIZE


def test_first_receptive_field_is_that_of_the_convolutions(lens):
    # Pixels further away must not change a position in the middle of the first map.
    field = receptive_field(lens, 0, share=1e-9)
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    maps = lens.map_at(image, 0)
    middle = maps.shape[2] // 2
    scale = SIZE // maps.shape[2]
    outside = image.clone()
    reach = field + scale
    top, bottom = max(0, middle * scale - reach), middle * scale + reach
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
    mask[top:bottom, top:bottom] = False
    outside[..., mask] = 1 - outside[..., mask]
    changed = lens.map_at(outside, 0)
    torch.testing.assert_close(changed[..., middle, middle], maps[..., middle, middle])


def test_patches_are_the_most_exciting_parts(lens, views):
    tap = 1
    channel = busiest_channels(lens, views, tap, count=2)[0]
    patches = exciting_patches(lens, views, tap, channel, count=3)
    activations = [patch.activation for patch in patches]
    assert activations == sorted(activations, reverse=True)
    assert len(patches) == 3
    best = max(float(lens.map_at(to_tensor(view), tap)[0, channel].max()) for view in views)
    assert activations[0] == pytest.approx(best, rel=1e-5)
    assert patches[0].pixels.shape[0] <= SIZE


def test_filters_and_maps_have_shapes_of_network(lens, views):
    filters = read_filters(lens)
    assert all(one.shape == filters[0].shape and one.dtype == np.uint8 for one in filters)
    maps = strongest_maps(lens, views[0], count=4)
    assert len(maps) == lens.n_taps
    assert all(len(one) == 4 for one in maps)


def test_total_variation_of_a_flat_image_is_nothing():
    assert total_variation(torch.full((1, 3, 8, 8), 0.3)) == 0
    assert total_variation(torch.rand(1, 3, 8, 8)) > 0.1
