import numpy as np
import pytest
import timm
import torch

from rootstock.assess.profile import LayerDivergence
from rootstock.assess.similarity import (
    ChannelMoments,
    gaussian_divergence,
    measure_similarity,
    quarter_medians,
    score_divergence,
    write_reference,
)
from rootstock.backbones.card import SimilarityScale
from rootstock.backbones.load import Backbone, load_backbone
from tests.bundles import tiny_backbone


def images(scale=1.0, shift=0.0, seed=0):
    random = np.random.default_rng(seed)
    noise = random.normal(size=(16, 3, 8, 8)).repeat(8, axis=2).repeat(8, axis=3)
    return (noise * scale + shift).astype(np.float32)


def adapted_backbone() -> Backbone:
    """Return the tiny backbone whose BatchNorm layers know `images()`."""
    backbone = load_backbone(tiny_backbone().card.weights, "")
    norms = [m for m in backbone.module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for seed in range(3):
            backbone.module(torch.from_numpy(images(seed=seed)))
    backbone.module.eval()
    return backbone


def test_moments_over_batches_are_those_of_all_values():
    values = torch.randn(10, 4, 5, 5)
    moments = ChannelMoments()
    moments.add(values[:3])
    moments.add(values[3:])
    mean, variance = moments.finish()
    np.testing.assert_allclose(mean, values.mean(dim=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(variance, values.var(dim=(0, 2, 3), unbiased=False), atol=1e-6)


def test_moments_of_a_large_mean_keep_the_variance():
    values = 30 + torch.randn(8, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    moments = ChannelMoments()
    moments.add(values)
    _, variance = moments.finish()
    expected = values.double().var(dim=(0, 2, 3), unbiased=False)
    np.testing.assert_allclose(variance, expected, rtol=1e-3)


def test_the_divergence_of_equal_gaussians_is_zero():
    ones = np.ones(5)
    assert gaussian_divergence(ones, ones, ones, ones) == pytest.approx(0.0, abs=1e-9)


def test_the_divergence_is_the_closed_form():
    zero, one = np.zeros(1), np.ones(1)
    # KL(N(1, 2) || N(0, 1)) = (2 + 1 - 1 - ln 2) / 2
    found = gaussian_divergence(one, 2 * one, zero, one)
    assert found == pytest.approx((2 - np.log(2)) / 2, abs=1e-4)


def test_the_score_falls_from_one_with_the_divergence():
    scale = SimilarityScale(in_domain=0.01, scale=0.1)
    assert score_divergence(0.005, scale) == 1.0
    assert score_divergence(0.11, scale) == pytest.approx(np.exp(-1))
    assert score_divergence(10.0, scale) < 1e-6


def test_quarters_without_layers_are_left_out():
    layers = [
        LayerDivergence(name=str(d), depth=d, divergence=v)
        for d, v in [(0.0, 1.0), (0.1, 3.0), (1.0, 7.0)]
    ]
    assert quarter_medians(layers) == (2.0, 7.0)


def test_head_norms_do_not_count_for_features():
    torch.manual_seed(0)
    module = timm.create_model("mobilenetv4_conv_small_035", num_classes=10)
    card = tiny_backbone().card.model_copy(update={"input_size": (3, 64, 64)})
    backbone = Backbone(card, module)

    def forwarded():
        for seed in range(2):
            backbone.features(torch.from_numpy(images(seed=seed)), backbone.tap_names)
            yield images(seed=seed)

    found = measure_similarity(backbone, forwarded(), threshold=0.5, forwarded=True)
    batches = [images(seed=seed) for seed in range(2)]
    assert found == measure_similarity(backbone, batches, threshold=0.5)
    assert "norm_head" in dict(module.named_modules())


def test_images_like_pretraining_ones_score_higher_than_others():
    backbone = adapted_backbone()
    near = measure_similarity(backbone, [images(seed=9)], threshold=0.5)
    far = measure_similarity(backbone, [images(scale=3, shift=2)], threshold=0.5)
    assert near.method == far.method == "batchnorm"
    assert near.similar
    assert not far.similar
    assert near.n_images == 16


def test_same_images_score_same_bit_for_bit():
    backbone = adapted_backbone()
    first, second = (measure_similarity(backbone, [images()], threshold=0.5) for _ in range(2))
    assert first == second


def layernorm_backbone(tmp_path, *, num_classes=5) -> Backbone:
    torch.manual_seed(0)
    module = timm.create_model("test_convnext", num_classes=num_classes)
    card = tiny_backbone().card.model_copy(
        update={"num_classes": num_classes, "weights": str(tmp_path / "net.safetensors")}
    )
    return Backbone(card, module)


def test_without_batchnorm_a_shipped_reference_serves(tmp_path):
    backbone = layernorm_backbone(tmp_path)
    path = tmp_path / "net.reference.safetensors"
    write_reference(backbone, [images(seed=seed) for seed in range(3)], path)
    near = measure_similarity(backbone, [images(seed=9)], threshold=0.5)
    far = measure_similarity(backbone, [images(scale=5, shift=3)], threshold=0.5)
    assert near.method == "reference"
    assert near.score > far.score


def test_without_a_reference_the_classifier_s_confidence_serves(tmp_path):
    found = measure_similarity(layernorm_backbone(tmp_path), [images()], threshold=0.5)
    assert found.method == "confidence"
    assert 0.2 <= found.score <= 1.0


def test_without_anything_the_cautious_answer_is_taken(tmp_path):
    backbone = layernorm_backbone(tmp_path, num_classes=0)
    found = measure_similarity(backbone, [images()], threshold=0.5)
    assert (found.method, found.similar) == ("none", False)
