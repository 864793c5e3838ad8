"""A GPU's ways to features, run on a processor: the same code, only slower."""

import numpy as np
import pytest
import torch

from rootstock.features import forward, gpu
from rootstock.features.fastest import choose_forward
from tests.bundles import tiny_backbone

TAPS = ["block1", "last"]


@pytest.fixture
def backbone():
    return tiny_backbone()


@pytest.fixture
def images(backbone):
    size = backbone.card.input_size[-1]
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def opened(backbone, tmp_path, monkeypatch):
    """The ways as a machine with a GPU opens them."""
    monkeypatch.setattr(forward, "_is_gpu", lambda device: True)
    size = backbone.card.input_size[-1]
    probe = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)

    def open_them(n_images=5_000, *, every=True):
        ways = forward.open_forwards(
            backbone, backbone.card.preprocess(), TAPS, n_images=n_images, probe=probe,
            folder=tmp_path, every=every,
        )  # fmt: skip
        return ways, probe

    return open_them


def plain(backbone, images):
    found = backbone.features(images, TAPS)
    return torch.cat([found[tap] for tap in TAPS], dim=1)


def test_every_way_gives_the_same_features(backbone, images):
    expected = plain(backbone, images)
    ways = gpu.gpu_ways(backbone, TAPS, n_images=1)
    assert [way.name for way in ways] == ["channels_last", "float16"]
    for way in ways:
        found = way.network(images)
        assert found.dtype == torch.float32
        tolerance = way.tolerance or forward.TOLERANCE
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_half_precision_is_half_precision(backbone, images):
    exact, half = (way.network for way in gpu.gpu_ways(backbone, TAPS, n_images=1))
    assert (half(images) != exact(images)).any()


def test_what_half_precision_cannot_hold_is_computed_in_full(backbone, images):
    exact, half = (way.network for way in gpu.gpu_ways(backbone, TAPS, n_images=1))
    huge = images * 1e7
    assert torch.isfinite(half(huge)).all()
    torch.testing.assert_close(half(huge), exact(huge), rtol=0, atol=0)


def test_the_ways_are_proved_and_the_fastest_is_measured(opened, tmp_path):
    ways, probe = opened()
    assert [way.name for way in ways.forwards] == [
        "torch", "torch (channels_last)", "torch (float16)",
    ]  # fmt: skip
    found = choose_forward(ways, n_images=5_000, probe=probe, folder=tmp_path)
    assert found in ways.forwards
    assert {tap: (v.shape, v.dtype) for tap, v in found.run(probe).items()} == {
        tap: (v.shape, v.dtype) for tap, v in ways.forwards[0].run(probe).items()
    }
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_the_plan_takes_the_plain_way(opened):
    ways, _ = opened(every=False)
    assert [way.name for way in ways.forwards] == ["torch"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda images: 1 / 0, "division by zero"),
        (lambda images: torch.full((len(images), 272), torch.nan), "its differ by nan"),
    ],
    ids=["fails", "answers nonsense"],
)
def test_a_way_that_fails_is_left_out(opened, monkeypatch, caplog, broken, said):
    def with_a_broken_one(*arguments, **options):
        return [gpu.gpu_ways(*arguments, **options)[0], gpu.GpuWay("float16", broken)]

    monkeypatch.setattr(forward, "gpu_ways", with_a_broken_one)
    ways, _ = opened()
    assert [way.how for way in ways.forwards] == ["", "channels_last"]
    assert f"not computed by torch (float16): {said}" in caplog.text


def test_compiling_is_tried_where_it_can_pay(opened, monkeypatch, caplog):
    def refuse(module):
        def run(images):
            raise RuntimeError("no compiler here")

        return run

    monkeypatch.setattr(torch, "compile", refuse)
    ways, _ = opened(n_images=gpu.COMPILE_FROM)
    assert [way.how for way in ways.forwards] == ["", "channels_last", "float16"]
    assert "torch (float16, compiled): no compiler here" in caplog.text


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_features(backbone, images):
    way = gpu.gpu_ways(backbone, TAPS, n_images=gpu.COMPILE_FROM)[-1]
    assert way.name == "float16, compiled"
    expected = plain(backbone, images)
    for found in (way.network(images), way.network(images[:1])):
        difference = (found - expected[: len(found)]).abs().max()
        assert difference <= gpu.HALF_TOLERANCE * expected.abs().max()
