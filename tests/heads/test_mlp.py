import numpy as np

from rootstock.heads.linear import MlpHead, read_head, write_head
from tests.tasks.classes import fit_linear_head, fit_mlp_head


def rings(count=400):
    """Return two classes that no linear border separates, as features of very unequal scale."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 2
    angle = random.uniform(0, 2 * np.pi, count)
    radius = 1.0 + 2.0 * labels + random.normal(0, 0.1, count)
    plane = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    return (plane * [1.0, 50.0] + [3.0, -20.0]).astype(np.float32), labels


def accuracy(head, features, labels):
    return (head.outputs(features).argmax(axis=1) == labels).mean()


def test_hidden_layer_separates_what_linear_head_cannot():
    features, labels = rings()
    linear = fit_linear_head(features, labels, l2=1e-3, n_classes=2)
    mlp = fit_mlp_head(features[:300], labels[:300], hidden=32, l2=1e-4, n_classes=2)
    assert accuracy(linear, features, labels) < 0.7
    assert accuracy(mlp, features[300:], labels[300:]) > 0.97


def test_the_seed_decides_the_head():
    features, labels = rings(100)
    heads = [
        fit_mlp_head(features, labels, hidden=8, l2=1e-3, n_classes=2, seed=s) for s in (0, 0, 1)
    ]
    assert np.array_equal(heads[0].inner.weights, heads[1].inner.weights)
    assert not np.array_equal(heads[0].inner.weights, heads[2].inner.weights)


def test_a_strong_penalty_shrinks_the_weights():
    features, labels = rings()
    weak, strong = (
        fit_mlp_head(features, labels, hidden=16, l2=l2, n_classes=2) for l2 in (1e-4, 1.0)
    )
    assert np.linalg.norm(strong.outer.weights) < 0.2 * np.linalg.norm(weak.outer.weights)


def test_balanced_weights_find_the_rare_class():
    features, labels = rings()
    kept = np.flatnonzero((labels == 0) | (np.arange(len(labels)) < 24))
    heads = [
        fit_mlp_head(
            features[kept], labels[kept], hidden=16, l2=0.03, n_classes=2, weighting=weight
        )
        for weight in ("none", "balanced")
    ]
    plain, balanced = (
        (head.outputs(features)[labels == 1].argmax(axis=1) == 1).mean() for head in heads
    )
    assert balanced > plain


def test_it_is_read_back_as_it_was_written(tmp_path):
    features, labels = rings(50)
    head = fit_mlp_head(features, labels, hidden=4, l2=0.1, n_classes=2)
    write_head(head, tmp_path / "head.safetensors")
    again = read_head(tmp_path / "head.safetensors")
    assert isinstance(again, MlpHead)
    assert np.array_equal(again.outputs(features), head.outputs(features))


def test_a_class_without_images_does_no_harm():
    features, labels = rings(60)
    head = fit_mlp_head(features, labels, hidden=8, l2=1e-3, n_classes=3, weighting="balanced")
    assert np.isfinite(head.outputs(features)).all()
    assert head.outputs(features).shape == (60, 3)
