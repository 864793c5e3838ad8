"""Corruptions get worse with severity, attacks stay within their radius and fool the model."""

import numpy as np
import pytest
import torch

from rootstock.explain.attacks import attack
from rootstock.explain.corruptions import CORRUPTIONS, SEVERITIES
from rootstock.explain.fooling import measure_fooling
from rootstock.explain.robustness import Sample, measure_corruptions, render_corruptions
from rootstock.explain.robustness_report import smallest_radii, summarise, write_robustness
from rootstock.model.predictor import Predictor
from rootstock.tasks.targets import Targets
from tests.bundles import CLASSES, jpeg, tiny_bundle


@pytest.fixture(scope="module")
def photo():
    rows, columns = np.mgrid[0:60, 0:80]
    stripes = 127 + 90 * np.sin(columns / 5) * np.cos(rows / 7)
    return np.stack([stripes, np.roll(stripes, 9, 1), 255 - stripes], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def predictor():
    return Predictor(tiny_bundle())


@pytest.fixture(scope="module")
def sample(predictor):
    """Twelve images; the labels are the model's answers, so every answer is right."""
    contents = [jpeg(seed) for seed in range(300, 312)]
    labels = np.array([CLASSES.index(a.label) for a in predictor.predict(contents)])
    pixels = [predictor.bundle.preprocess.decode(content).pixels for content in contents]
    texts = [CLASSES[label] for label in labels]
    names = [f"{number}.jpg" for number in range(len(contents))]
    return Sample(pixels, Targets(labels, tuple(CLASSES), labels), texts, names)


@pytest.mark.parametrize("name", list(CORRUPTIONS))
def test_corruption_changes_more_with_severity(photo, name):
    before = photo.copy()
    results = [CORRUPTIONS[name](photo, severity) for severity in SEVERITIES]
    np.testing.assert_array_equal(photo, before)
    for one in results:
        assert one.dtype == np.uint8
        assert one.ndim == 3
    if name == "crop":
        sizes = [one.size for one in results]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] < photo.size
        return
    changes = [np.abs(one.astype(int) - photo).mean() for one in results]
    assert changes[0] > 0
    assert changes[-1] > changes[0]
    if name not in ("rotation", "scale"):
        assert changes == sorted(changes)


def test_scores_are_those_of_the_changed_images(predictor, sample):
    scores = measure_corruptions(predictor, sample, severities=[3])
    assert scores.clean == 1.0
    assert set(scores.scores) == set(CORRUPTIONS)
    changed = [CORRUPTIONS["contrast"](pixels, 3) for pixels in sample.pixels]
    inferred = predictor.infer([predictor.cut(pixels) for pixels in changed])
    expected = (inferred.decisions.argmax(axis=1) == sample.targets.values).mean()
    assert scores.scores["contrast"] == [pytest.approx(expected)]
    assert scores.typical == pytest.approx(np.mean([one[0] for one in scores.scores.values()]))


def test_section_has_a_row_for_each_corruption(predictor, sample):
    scores = measure_corruptions(predictor, sample, severities=[3])
    text = render_corruptions("accuracy", scores)
    assert "12 test images, degraded" in text
    assert "| none | 1.000 |" in text
    for name, values in scores.scores.items():
        assert f"| {name} | {values[0]:.3f} | {scores.unknown[name][0]:.0%} |" in text


@pytest.mark.parametrize("steps", [1, 10])
def test_attack_stays_within_radius_and_raises_the_loss(steps):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    pixels = torch.randint(0, 256, (4, 3, 8, 8)).float()
    mean = std = torch.full((3, 1, 1), 0.5)
    labels = torch.tensor([0, 1, 0, 1])

    def loss(outputs):
        return torch.nn.functional.cross_entropy(outputs, labels, reduction="sum")

    changed = attack(network, pixels, mean, std, loss, radius=2.0, steps=steps)
    assert (changed - pixels).abs().max() <= 2.0
    assert changed.min() >= 0
    assert changed.max() <= 255
    before, after = (loss(network((p / 255 - mean) / std)) for p in (pixels, changed))
    assert after > before + 0.1


def test_larger_radius_fools_more_and_examples_are_real(predictor, sample):
    fooling = measure_fooling(predictor, sample, radii=(1, 8, 64))
    assert fooling.clean == 1.0
    for scores in fooling.scores.values():
        assert scores[0] >= scores[-1]
    assert fooling.scores["PGD"][-1] < 0.5
    assert fooling.examples
    for example in fooling.examples:
        change = np.abs(example.after.astype(int) - example.before).max()
        assert 0 < change <= example.radius
        normalised = predictor.bundle.preprocess.normalise(example.after[None])
        decision = predictor.infer_normalised(normalised, "one").decisions
        assert predictor.task.decided(decision, CLASSES) == [example.says]
        assert example.says != example.said


def test_smallest_radius_is_the_median_of_those_fooled(sample, predictor):
    fooling = measure_fooling(predictor, sample, radii=(8, 64))
    medians = smallest_radii(sample, fooling)
    assert set(medians) == set(sample.texts)
    assert set(medians.values()) <= {8, 36, 64, None}


def test_report_holds_numbers_words_and_pictures(predictor, sample, tmp_path):
    corruptions = measure_corruptions(predictor, sample)
    fooling = measure_fooling(predictor, sample, radii=(8, 64))
    numbers = write_robustness("accuracy", sample, corruptions, fooling, tmp_path)
    text = (tmp_path / "robustness.md").read_text()
    assert summarise(numbers) in text
    for name in ("robustness.json", "corruptions.png", "attacks.png", "adversarial.png"):
        assert (tmp_path / name).stat().st_size > 100
