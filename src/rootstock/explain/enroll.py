"""Add a class from a few images, without a training run: the head is fitted again.

The model carries features of up to 1,000 training images. Together with the features of the new
images, they are enough for a head. The backbone does not change, so this takes seconds. Needs
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.backbones.card import BackboneCard
from rootstock.backbones.load import build_backbone
from rootstock.errors import DataError
from rootstock.heads.linear import LinearHead
from rootstock.model.bundle import MAX_GOLDEN, ModelBundle
from rootstock.model.bundle_writer import write_bundle
from rootstock.model.engine import load_network
from rootstock.model.known_images import KnownImage, KnownImages, unnamed
from rootstock.model.novelty import Reference, unit_rows
from rootstock.model.predictor import Predictor
from rootstock.tasks.targets import Targets
from rootstock.training.network import TransferNet

STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01)
FOLDS = 5
SEED = 0
FOLDED_IMAGES = 2
"""With fewer images of the new class, its recall cannot be measured."""


@dataclass(frozen=True)
class NewImage:
    """An image of the new class: its name, bytes, SHA-256, and features float32[D]."""

    name: str
    content: bytes
    sha256: str
    features: np.ndarray


@dataclass(frozen=True)
class Enrolled:
    """The effect of the new class on the others, on images that the head was not fitted to.

    ``before`` and ``after`` are the accuracies on images of the old classes, by folds over the
    ``n_known`` images that the model carries. ``recall`` of the new class is None if it cannot
    be measured.
    """

    name: str
    n_new: int
    n_known: int
    before: float
    after: float
    recall: float | None
    bundle: ModelBundle

    def summary(self) -> str:
        """Return the result in two sentences."""
        recall = (
            f"{self.recall:.1%} of its images are recognized"
            if self.recall is not None
            else "one image is too few to measure its recall"
        )
        return (
            f"{self.name}: {self.n_new} images; {recall} (each left out in turn). On "
            f"{self.n_known} images of the other classes, the accuracy is {self.after:.1%} "
            f"({self.before:.1%} without the new class)."
        )


def enroll_class(
    predictor: Predictor, name: str, images: Sequence[NewImage], out: Path
) -> Enrolled:
    """Write a model with one more class to the folder ``out``; the given model is not changed.

    Raises:
        DataError: The model cannot take another class, or already has this one.
        BundleError: It does not list its training images, or the folder contains something else.
    """
    bundle = predictor.bundle
    known, reference = _check(predictor, name, images)
    names = [*predictor.names, name]
    old = reference.features.astype(np.float32) * known.lengths[:, None]
    features = np.concatenate([old, np.stack([one.features for one in images])])
    old_labels = np.array([predictor.names.index(one.target) for one in known.images])
    labels = np.concatenate([old_labels, np.full(len(images), len(names) - 1)])
    targets = Targets(labels, tuple(names), labels)
    rows = np.arange(len(old))
    # Each of the few new images weighs as much as many old ones; otherwise the class never wins.
    solver = predictor.task.head("balanced")
    l2 = _choose_strength(solver, old, targets.take(rows))
    head = solver.fit(features, targets, l2=l2)
    outputs = _out_of_fold(solver, features, targets, l2)
    calibration = predictor.task.calibrate(outputs, targets)
    decisions = predictor.task.decide(outputs, calibration)
    old_outputs = _out_of_fold(solver, old, targets.take(rows), l2)
    before = _are_right(predictor, old_outputs, targets.take(rows))
    after = _are_right(predictor, outputs, targets)
    new_known = [KnownImage(one.name, name, one.sha256) for one in images]
    lengths = np.linalg.norm(features, axis=1).astype(np.float32)
    facts = bundle.facts
    written = write_bundle(
        out,
        network=_replace_head(predictor, head),
        card=BackboneCard.model_validate(facts.card),
        preprocess=bundle.preprocess,
        task=facts.task,
        names=names,
        strategy=facts.strategy,
        calibration=calibration,
        metrics=facts.metrics,
        lineage=facts.lineage | {"enrolled": [*facts.lineage.get("enrolled", []), name]},
        golden=_golden(predictor, name, images),
        views=facts.views,
        reference=Reference(
            unit_rows(features).astype(np.float16),
            reference.distances,
            predictor.task.remember(decisions, targets),
        ),
        known=KnownImages([*known.images, *new_known], lengths),
        seen=bundle.seen,
        unknown_share=facts.unknown_share,
        limits=bundle.limits,
    )
    return Enrolled(
        name,
        len(images),
        len(old),
        float(before.mean()),
        float(after[rows].mean()),
        float(after[len(old) :].mean()) if len(images) >= FOLDED_IMAGES else None,
        written,
    )


def _check(
    predictor: Predictor, name: str, images: Sequence[NewImage]
) -> tuple[KnownImages, Reference]:
    known, reference = predictor.bundle.known_images, predictor.bundle.reference
    if not predictor.task.competing:
        raise DataError("a class can be enrolled in a model with one class per image only")
    if predictor.bundle.facts.networks > 1:
        raise DataError(
            f"the model averages {predictor.bundle.facts.networks} networks, each with its own "
            "head: a class cannot be enrolled",
            hint="train a model with train.ensemble=1, or add the class to the data",
        )
    if name in predictor.names:
        raise DataError(
            f"the model already has the class {name!r}",
            hint="to improve a class, add images to the data and train again",
        )
    if not images:
        raise DataError("no image of the new class is usable")
    if known is None or reference is None:
        raise unnamed()
    return known, reference


def _choose_strength(solver: Any, features: np.ndarray, targets: Targets) -> float:
    """Return the strength with the lowest log loss on held-out images of the old classes."""
    some = targets.foldable()
    if not len(some):
        return STRENGTHS[len(STRENGTHS) // 2]
    path = solver.cross_validate(
        features[some], targets.take(some), folds=FOLDS, strengths=STRENGTHS, seed=SEED
    )
    return float(path.strengths[int(path.losses.mean(axis=1).argmin())])


def _out_of_fold(solver: Any, features: np.ndarray, targets: Targets, l2: float) -> np.ndarray:
    """Return outputs float32[N,K] by heads that did not see an image, if there are several.

    The only image of a class gets the output of a head that saw it.
    """
    some = targets.foldable()
    outputs = solver.fit(features, targets, l2=l2).outputs(features)
    if len(some):
        outputs[some] = solver.out_of_fold(
            features[some], targets.take(some), folds=FOLDS, l2=l2, seed=SEED
        )
    return np.asarray(outputs)


def _are_right(predictor: Predictor, outputs: np.ndarray, targets: Targets) -> np.ndarray:
    """Return bool[N]."""
    task, names = predictor.task, targets.names
    calibration = predictor.bundle.facts.calibration
    said = task.decided(task.decide(outputs, calibration), names)
    return np.array([names.index(one) for one in said]) == targets.values


def _replace_head(predictor: Predictor, head: LinearHead) -> TransferNet:
    facts = predictor.bundle.facts
    backbone = build_backbone(BackboneCard.model_validate(facts.card))
    network = TransferNet.build(backbone, tap=facts.tap, head=head)
    network.extractor = load_network(predictor.bundle).extractor
    return network.eval()


def _golden(
    predictor: Predictor, name: str, images: Sequence[NewImage]
) -> list[tuple[str, bytes, str]]:
    bundle = predictor.bundle
    kept = [(one.file, bundle.golden_bytes(one), one.target) for one in bundle.golden]
    return [*kept[: MAX_GOLDEN - 1], (images[0].name, images[0].content, name)]
