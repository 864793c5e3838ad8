"""Adversarial images of a model: how far pixels must change before the answer does.

Needs torch for the gradient of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from rootstock.data.entry import count
from rootstock.explain.attacks import PGD_STEPS, attack
from rootstock.explain.robustness import Sample
from rootstock.model.engine import load_network
from rootstock.model.predictor import Predictor
from rootstock.system.progress import Progress
from rootstock.tasks.metric_words import name_metric

RADII = (1, 2, 4, 8)
"""In pixel levels of 255, as in files: a change of 2 is invisible."""
METHODS = {"FGSM": 1, "PGD": PGD_STEPS}
"""Steps of each method."""
BATCH_IMAGES = 16
MAX_EXAMPLES = 8
SUBTLE_RADIUS = 2
ADVERSARIAL_PREFIX = "adversarial_"
"""Prefix of the score's name: the score after PGD within `SUBTLE_RADIUS`."""


@dataclass(frozen=True)
class Example:
    """A view uint8[S,S,3] before and after the smallest attack that changed a right answer."""

    path: str
    before: np.ndarray
    after: np.ndarray
    said: str
    says: str
    radius: int


@dataclass(frozen=True)
class FoolingScores:
    """The score without an attack, and after each method at every radius.

    ``smallest`` float[N]: the smallest radius of PGD that makes a right answer wrong; infinite if
    none does, nan if the answer was wrong before. Empty for tasks without right and wrong.
    """

    n_images: int
    radii: Sequence[int]
    clean: float
    scores: dict[str, list[float]]
    smallest: np.ndarray
    examples: Sequence[Example]


def measure_fooling(
    predictor: Predictor, sample: Sample, *, radii: Sequence[int] = RADII
) -> FoolingScores:
    """Attack the first view of every image by FGSM and PGD at every radius, in rising order."""
    task = predictor.task
    views = np.stack([predictor.bundle.preprocess.fit(pixels) for pixels in sample.pixels])
    decisions = _decide(predictor, views)
    right = _are_right(predictor, sample, decisions)
    smallest = np.where(right, np.inf, np.nan) if task.discrete else np.empty(0)
    clean = _score(predictor, sample, decisions)
    scores: dict[str, list[float]] = {name: [] for name in METHODS}
    examples: list[Example] = []
    make = _Attacker(predictor, sample, views)
    with Progress("attacks", len(METHODS) * len(radii), "setting") as progress:
        for name, steps in METHODS.items():
            for radius in radii:
                changed = make(radius, steps)
                attacked = _decide(predictor, changed)
                scores[name].append(_score(predictor, sample, attacked))
                progress.update(1)
                if name != "PGD" or not task.discrete:
                    continue
                fooled = np.isinf(smallest) & ~_are_right(predictor, sample, attacked)
                smallest[fooled] = radius
                said, says = (task.decided(one, predictor.names) for one in (decisions, attacked))
                examples += [
                    Example(sample.paths[i], views[i], changed[i], said[i], says[i], radius)
                    for i in np.flatnonzero(fooled)[: MAX_EXAMPLES - len(examples)]
                ]
    return FoolingScores(len(views), tuple(radii), clean, scores, smallest, examples)


def render_fooling(metric: str, result: FoolingScores) -> str:
    """Return a paragraph of an evaluation on attacks of the smallest radius."""
    name, radius = name_metric(metric), result.radii[0]
    scores = " and ".join(f"{one[0]:.3f} by {method}" for method, one in result.scores.items())
    return (
        f"An attacker who knows the model and changes each pixel by at most {radius} of 255 "
        f"levels, which is invisible, changes the {name} on "
        f"{count(result.n_images, 'test image')} from {result.clean:.3f} to {scores}.\n"
    )


class _Attacker:
    """Attacks the same views repeatedly."""

    def __init__(self, predictor: Predictor, sample: Sample, views: np.ndarray) -> None:
        preprocess = predictor.bundle.preprocess
        self._network = load_network(predictor.bundle).requires_grad_(False)
        self._mean = torch.tensor(preprocess.mean)[:, None, None]
        self._std = torch.tensor(preprocess.std)[:, None, None]
        units = predictor.task.read_units(predictor.bundle.facts.calibration)
        self._targets, self._views = replace(sample.targets, units=units), views
        self._loss = predictor.task.loss(
            self._targets, weighting="none", label_smoothing=0.0, device=torch.device("cpu")
        )

    def __call__(self, radius: int, steps: int) -> np.ndarray:
        """Return the changed views uint8[N,S,S,3]."""
        changed = np.empty_like(self._views)
        for start in range(0, len(changed), BATCH_IMAGES):
            rows = slice(start, start + BATCH_IMAGES)
            encoded = self._loss.encode(self._targets.values[rows])
            found = attack(
                self._network,
                torch.from_numpy(self._views[rows]).permute(0, 3, 1, 2).float(),
                self._mean,
                self._std,
                partial(self._loss.total, targets=encoded),
                radius=float(radius),
                steps=steps,
            )
            changed[rows] = found.round().byte().permute(0, 2, 3, 1).numpy()
        return changed


def _decide(predictor: Predictor, views: np.ndarray) -> np.ndarray:
    decisions = []
    for start in range(0, len(views), BATCH_IMAGES):
        images = predictor.bundle.preprocess.normalise(views[start : start + BATCH_IMAGES])
        decisions.append(predictor.infer_normalised(images, "one").decisions)
    return np.concatenate(decisions)


def _score(predictor: Predictor, sample: Sample, decisions: np.ndarray) -> float:
    task = predictor.task
    return round(float(task.metrics(decisions, sample.targets)[task.score]), 6)


def _are_right(predictor: Predictor, sample: Sample, decisions: np.ndarray) -> np.ndarray:
    """Return bool[N]; all True for tasks without right and wrong."""
    if not predictor.task.discrete:
        return np.ones(len(decisions), bool)
    said = predictor.task.decided(decisions, predictor.names)
    return np.array([one == text for one, text in zip(said, sample.texts, strict=True)], bool)
