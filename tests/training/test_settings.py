"""Each setting of fine-tuning has the effect that its name states, measured on the network.

One batch holds all training images, so the network's input, its output, and the loss can be
computed by hand.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.bundles import tiny_network
from tests.training import test_finetune

images = test_finetune.images  # the fixture

PLAIN = {
    "epochs": 1,
    "batch_size": 64,
    "learning_rate": 1e-12,
    "augmentation": "none",
    "flip": False,
    "weight_decay": 0.0,
    "layer_decay": 1.0,
    "head_multiplier": 1.0,
    "freeze_through": "last",
}
FIRST_RATE = 0.01
"""Share of the peak rate that the first step of all takes."""


@dataclasses.dataclass
class Training:
    """The network's inputs and outputs during a training run, and its result."""

    inputs: list
    logits: list
    losses: list
    network: torch.nn.Module
    start: dict

    def moved(self, name):
        """Return how much training has changed a tensor."""
        return (self.network.state_dict()[name] - self.start[name]).double()


def train(images, directory, *, head_scale=1.0, **changes):
    """Fine-tune the tiny network; by default its body is frozen and its rate almost 0."""
    network, inputs, logits, losses = tiny_network(), [], [], []
    with torch.no_grad():
        network.head.weight *= head_scale
    start = {name: value.clone() for name, value in network.state_dict().items()}

    def note(_, arguments, output):
        if torch.is_grad_enabled():
            inputs.append(arguments[0].detach().clone())
            logits.append(output.detach().clone())

    network.register_forward_hook(note)
    test_finetune.run(
        images,
        directory,
        network,
        report=lambda step, values: losses.append(values["train_loss"]),
        **(PLAIN | changes),
    )
    return Training(inputs, logits, losses, network, start)


def labels_of(inputs, images):
    """Return the classes of plain inputs, which come in any order."""
    every, shown = images[0].targets.values, []
    pictures = torch.from_numpy(images[0].pixels(range(len(every)))).permute(0, 3, 1, 2).float()
    small = F.interpolate(pictures, size=inputs.shape[-1], mode="bilinear", antialias=True)
    for one in inputs:
        alike = [torch.corrcoef(torch.stack([one.flatten(), s.flatten()]))[0, 1] for s in small]
        assert max(alike) > 0.95
        shown.append(every[int(np.argmax(alike))])
    return torch.tensor(shown)


@pytest.fixture(scope="module")
def plain(images, tmp_path_factory):
    return train(images, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("level", ["light", "medium", "strong"])
def test_an_augmented_training_shows_changed_images(images, tmp_path, plain, level):
    shown = train(images, tmp_path, augmentation=level, epochs=2).inputs
    changed = (shown[0] - plain.inputs[0]).abs().mean(dim=(1, 2, 3))
    assert (changed > 0.05).float().mean() > 0.8
    assert not torch.equal(shown[0].sort(dim=0).values, shown[1].sort(dim=0).values)


def test_a_training_that_mirrors_shows_mirror_images(images, tmp_path, plain):
    (shown,), (before,) = train(images, tmp_path, flip=True).inputs, plain.inputs
    mirrored = [torch.allclose(a, b.flip(2), atol=1e-4) for a, b in zip(shown, before, strict=True)]
    same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(shown, before, strict=True)]
    assert sum(mirrored) + sum(same) == len(before)
    assert min(sum(mirrored), sum(same)) > 2


def mixtures(shown, before):
    """Return, per image of a mixed batch, its own share and the number of its partner."""
    found = []
    for own, mixed in zip(before, shown, strict=True):
        # The real partner first: for unmixed images, any other fits equally well.
        best = (float((own - mixed).abs().mean()), 1.0, len(found))
        for number, other in enumerate(before):
            if best[0] < 1e-6 or number == len(found):
                continue
            away = own - other
            share = float(((mixed - other) * away).sum() / away.square().sum())
            left = float((share * own + (1 - share) * other - mixed).abs().mean())
            best = min(best, (left, share, number))
        found.append(best)
    return found


def cross_entropy(logits, targets):
    return float(-(targets * logits.double().log_softmax(dim=1)).sum(dim=1).mean())


def test_mixup_shows_mixed_images_and_their_shared_labels(images, tmp_path, plain):
    mixed = train(images, tmp_path, mixup=1.0)
    found = mixtures(mixed.inputs[0], plain.inputs[0])
    assert max(left for left, _, _ in found) < 1e-4
    partners = [number for _, _, number in found]
    assert sorted(partners) == list(range(len(found)))
    share = next(share for n, (_, share, number) in enumerate(found) if n != number)
    assert 0.01 < share < 0.99
    own = F.one_hot(labels_of(plain.inputs[0], images), 3).double()
    targets = share * own + (1 - share) * own[partners]
    assert mixed.losses[0] == pytest.approx(cross_entropy(mixed.logits[0], targets), rel=1e-4)


def test_cutmix_shows_boxes_and_shared_labels(images, tmp_path, plain):
    (before,), cut = plain.inputs, train(images, tmp_path, cutmix=1.0)
    own = F.one_hot(labels_of(before, images), 3).double()
    targets = []
    for number, shown in enumerate(cut.inputs[0]):
        mine = (shown == before[number]).all(dim=0)
        partner = next(
            other
            for other, image in enumerate(before)
            if (mine | (shown == image).all(dim=0)).all()
        )
        share = mine.double().mean()
        targets.append(share * own[number] + (1 - share) * own[partner])
    targets = torch.stack(targets)
    assert 0.01 < (1 - targets.max(dim=1).values).max() < 0.6
    assert cut.losses[0] == pytest.approx(cross_entropy(cut.logits[0], targets), rel=1e-3)


def test_label_smoothing_gives_every_class_share_of_target(images, tmp_path, plain):
    smooth = train(images, tmp_path, head_scale=30, label_smoothing=0.3)
    own = F.one_hot(labels_of(plain.inputs[0], images), 3).double()
    assert plain.losses[0] == pytest.approx(cross_entropy(plain.logits[0], own), rel=1e-4)
    expected = cross_entropy(smooth.logits[0], 0.7 * own + 0.3 / 3)
    assert expected != pytest.approx(cross_entropy(smooth.logits[0], own), rel=1e-3)
    assert smooth.losses[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_shrinks_weights_and_no_biases(images, tmp_path, optimizer):
    plain, decayed = (
        train(
            images,
            tmp_path / str(decay),
            optimizer=optimizer,
            learning_rate=1.0,
            weight_decay=decay,
            freeze_through=None,
        )
        for decay in (0.0, 0.5)
    )
    for name, start in plain.start.items():
        lost = plain.moved(name) - decayed.moved(name)
        if start.ndim > 1:
            # One step takes the same share of every weight
            share = float((lost * start).sum() / start.double().square().sum())
            nesterov = 1.9 if optimizer == "sgd" else 1.0
            assert share == pytest.approx(nesterov * FIRST_RATE * 0.5, rel=1e-3)
        else:
            assert torch.equal(lost, torch.zeros_like(lost))


@pytest.mark.parametrize("scale", [10, 1000])
def test_step_is_no_longer_than_clipped_gradient_allows(images, tmp_path, scale):
    trained = train(
        images, tmp_path, head_scale=scale, optimizer="sgd", learning_rate=10.0, freeze_through=None
    )
    step = torch.stack([trained.moved(name).norm() for name in trained.start]).norm()
    assert float(step) == pytest.approx(1.9 * 10.0 * FIRST_RATE * 1.0, rel=0.01)


def test_rate_warms_up_and_then_falls_as_cosine(images, tmp_path, monkeypatch):
    rates, step = [], torch.optim.AdamW.step

    def note(self, *arguments, **options):
        rates.append({group["stage"]: group["lr"] for group in self.param_groups})
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    changes = {"learning_rate": 1e-4, "head_multiplier": 3.0, "layer_decay": 0.5}
    train(images, tmp_path, epochs=20, freeze_through=None, patience=100, **changes)
    head = [rate["head"] / 3e-4 for rate in rates]
    assert head[0] == pytest.approx(0.01, abs=0.001)
    assert head[1] == pytest.approx(0.51, abs=0.001)
    assert head[2] == pytest.approx(1.0)
    assert head[11] == pytest.approx(0.5)  # half of the way from step 2 to step 20
    assert head[19] < 0.01
    assert all(later < earlier for earlier, later in itertools.pairwise(head[2:]))
    for rate in rates:
        assert rate["last"] == pytest.approx(rate["head"] / 3)
        assert rate["block2"] < rate["last"]


COUNTS = {0: 6, 1: 6, 2: 2}
"""Training images of each class in the tests of unequal classes."""


@pytest.fixture(scope="module")
def unequal(images):
    """Training and validation images; the third class is rare in training."""
    rows, labels = images[0].rows, images[0].targets.values
    chosen = np.sort(
        np.concatenate([np.flatnonzero(labels == label)[:n] for label, n in COUNTS.items()])
    )
    rare = tuple(rows[number] for number in chosen)
    targets = images[0].targets.take(chosen)
    return dataclasses.replace(images[0], rows=rare, targets=targets, cache=None), images[1]


def test_balanced_classes_weigh_equally_in_loss(unequal, tmp_path):
    trained = train(unequal, tmp_path, weighting="balanced")
    labels = labels_of(trained.inputs[0], unequal)
    losses = F.cross_entropy(trained.logits[0], labels, reduction="none")
    of_class = [float(losses[labels == label].mean()) for label in COUNTS]
    assert trained.losses[0] == pytest.approx(np.mean(of_class), rel=1e-4)
    assert trained.losses[0] != pytest.approx(float(losses.mean()), rel=1e-3)


def test_adjusted_logits_include_class_shares(unequal, tmp_path):
    trained = train(unequal, tmp_path, weighting="logit_adjusted")
    labels = labels_of(trained.inputs[0], unequal)
    raised = trained.logits[0] + torch.tensor(list(COUNTS.values())).log()
    assert trained.losses[0] == pytest.approx(float(F.cross_entropy(raised, labels)), rel=1e-4)


def test_balanced_sampling_shows_the_rare_class_as_often(unequal, tmp_path):
    (inputs,) = train(unequal, tmp_path, weighting="balanced_sampling").inputs
    shown = np.bincount(labels_of(inputs, unequal))
    assert len(inputs) == sum(COUNTS.values())
    assert shown.max() - shown.min() <= 1


def test_step_takes_batch_size_images(images, tmp_path):
    sizes = [len(batch) for batch in train(images, tmp_path, batch_size=8).inputs]
    full, rest = divmod(len(images[0]), 8)
    assert sizes == [8] * full + [rest] * (rest > 0)


def test_network_gets_at_most_a_micro_batch(images, tmp_path):
    sizes = [len(part) for part in train(images, tmp_path, micro_batch=5).inputs]
    assert max(sizes) == 5
    assert sum(sizes) == len(images[0])


def test_another_seed_shows_the_images_in_another_order(images, tmp_path, plain):
    again = train(images, tmp_path / "again")
    other = train(images, tmp_path / "other", seed=1)
    assert torch.equal(again.inputs[0], plain.inputs[0])
    assert not torch.equal(other.inputs[0], plain.inputs[0])
