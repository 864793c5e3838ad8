import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rootstock.training.mix import balanced_order, choose_mixup, mix_batch

LABELS = torch.tensor([0, 1, 2, 1])
ONE_HOT = F.one_hot(LABELS, 3).float()


def batch():
    return torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8).clone()


def mixed(**options):
    settings = {"mixup": 0.0, "cutmix": 0.0, "draw": (0, 0, 0)}
    return mix_batch(batch(), ONE_HOT, **(settings | options))


def test_without_mixing_the_targets_stay():
    images, targets = mixed()
    assert torch.equal(images, batch())
    assert torch.equal(targets, ONE_HOT)


@pytest.mark.parametrize(
    "options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}]
)
def test_targets_are_shared_as_the_pixels_are(options):
    images, targets = mixed(**options)
    assert torch.allclose(targets.sum(dim=1), torch.ones(4))
    values = torch.arange(4.0)
    partners = torch.from_numpy(_partners(options))
    # images are constant, so their mean shows the share of each in the mixture
    means = images.mean(dim=(1, 2, 3))
    moved = values != values[partners]
    share = ((means - values[partners]) / (values - values[partners]))[moved]
    assert torch.allclose(share, share[0].expand_as(share), atol=1e-5)
    expected = share[0] * F.one_hot(LABELS, 3) + (1 - share[0]) * F.one_hot(LABELS[partners], 3)
    assert torch.allclose(targets, expected, atol=1e-5)


def _partners(options):
    random = np.random.default_rng((0, 0, 0))
    if len(options) == 2:
        random.random()
    random.beta(list(options.values())[0], list(options.values())[0])
    return random.permutation(4)


def test_same_draw_mixes_same_and_another_differently():
    first, again = mixed(mixup=0.4), mixed(mixup=0.4)
    other = mixed(mixup=0.4, draw=(0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_soft_targets_cost_what_labels_cost():
    logits, weights = torch.randn(4, 3), torch.tensor([1.0, 2.0, 0.5])
    _, targets = mixed()
    options = {"weight": weights, "label_smoothing": 0.1, "reduction": "sum"}
    torch.testing.assert_close(
        F.cross_entropy(logits, targets, **options), F.cross_entropy(logits, LABELS, **options)
    )


@pytest.mark.parametrize(("n_train", "alpha"), [(19_999, 0.0), (20_000, 0.1)])
def test_auto_mixes_large_data_only(n_train, alpha):
    assert choose_mixup("auto", n_train=n_train) == alpha
    assert choose_mixup(0.3, n_train=n_train) == 0.3


def test_balanced_sampling_shows_classes_equally_often():
    labels = np.array([0] * 90 + [1] * 10)
    order = balanced_order(labels, seed=0, epoch=0)
    counts = np.bincount(labels[order.numpy()])
    assert counts.tolist() == [50, 50]
    assert len(set(order.tolist())) == 60  # fifty of the large class, all ten of the small


def test_balanced_sampling_depends_on_seed_and_epoch():
    labels = np.arange(30) % 4
    first, again = (balanced_order(labels, seed=1, epoch=2) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, balanced_order(labels, seed=1, epoch=3))
