"""A GPU's ways to compute features, run on a CPU: the same code, only slower."""

import dataclasses

import numpy as np
import pytest
import torch

from rootstock.features import fastest, forward
from rootstock.features import variants as gpu
from rootstock.features.fastest import choose_pass
from tests.bundles import tiny_backbone

TAPS = ["block1", "last"]
BATCH = 8
WIDTH = 272  # total of the two taps


@pytest.fixture
def backbone():
    return tiny_backbone()


@pytest.fixture
def images(backbone):
    size = backbone.card.input_size[-1]
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def opened(backbone, tmp_path, monkeypatch):
    """Return the ways that a machine with a GPU opens."""
    monkeypatch.setattr(forward, "_is_gpu", lambda device: True)
    size = backbone.card.input_size[-1]
    probe = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)

    def open_them(*, every=True):
        ways = forward.open_passes(
            backbone, backbone.card.preprocess(), TAPS[::-1], n_images=5_000, probe=lambda: probe,
            folder=tmp_path, every=every,
        )  # fmt: skip
        return ways, probe

    return open_them


def half_nonsense(count):
    found = torch.zeros(count, WIDTH)
    found[:, -1] = torch.nan
    return found


def plain(backbone, images):
    found = backbone.features(images, TAPS)
    return torch.cat([found[tap] for tap in TAPS], dim=1)


def test_every_way_gives_the_same_features(backbone, images):
    expected = plain(backbone, images)
    ways = gpu.gpu_variants(backbone, TAPS)
    assert [way.name for way in ways] == ["channels_last", "float16"]
    for way in ways:
        found = way.network(images)
        assert found.dtype == torch.float32
        tolerance = way.tolerance or forward.TOLERANCE
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_half_precision_is_half_precision(backbone, images):
    exact, half = (way.network for way in gpu.gpu_variants(backbone, TAPS))
    assert (half(images) != exact(images)).any()


def test_overflowing_half_precision_uses_full_precision(backbone, images):
    exact, half = (way.network for way in gpu.gpu_variants(backbone, TAPS))
    huge = images * 1e7
    assert torch.isfinite(half(huge)).all()
    torch.testing.assert_close(half(huge), exact(huge), rtol=0, atol=0)


def test_ways_are_proved_and_fastest_is_taken(opened, tmp_path, monkeypatch):
    ways, probe = opened()
    names = ["torch", "torch (channels_last)", "torch (float16)"]
    assert [way.name for way in ways.variants] == names
    expected = ways.variants[0].run(probe)
    for fast, name in enumerate(names):
        seconds = {way: 0.01 if number == fast else 0.1 for number, way in enumerate(names)}
        monkeypatch.setattr(fastest, "time_in_turns", lambda runs, s=seconds, **_: s)
        folder = tmp_path / str(fast)
        found = choose_pass(ways, probe=probe, folder=folder, batch_size=BATCH)
        assert found.name == name
        for tap, values in found.run(probe).items():
            assert (values.shape, values.dtype) == (expected[tap].shape, np.float16)


def test_gpu_is_measured_with_batches_it_will_get(opened, tmp_path, monkeypatch):
    ways, probe = opened()
    seen = []

    def count(images):
        seen.append(len(images))
        return {}

    monkeypatch.setattr(fastest, "SECONDS_PER_WAY", 0.0)
    counting = tuple(dataclasses.replace(way, run=count) for way in ways.variants)
    ways = dataclasses.replace(ways, variants=counting)
    choose_pass(ways, probe=probe, folder=tmp_path, batch_size=BATCH)
    assert set(seen) == {BATCH}


def test_the_plan_takes_the_plain_way(opened):
    ways, _ = opened(every=False)
    assert [way.name for way in ways.variants] == ["torch"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda images: 1 / 0, "division by zero"),
        (lambda images: torch.full((len(images), WIDTH), torch.nan), "its features differ by nan"),
        (lambda images: half_nonsense(len(images)), "its features differ by nan"),
    ],
    ids=["fails", "answers nonsense", "answers nonsense at one tap"],
)
def test_a_way_that_fails_is_left_out(opened, monkeypatch, caplog, broken, said):
    def with_a_broken_one(*arguments, **options):
        return [gpu.gpu_variants(*arguments, **options)[0], gpu.GpuVariant("float16", broken)]

    monkeypatch.setattr(forward, "gpu_variants", with_a_broken_one)
    ways, _ = opened()
    assert [way.variant for way in ways.variants] == ["", "channels_last"]
    assert f"not computed with torch (float16): {said}" in caplog.text
