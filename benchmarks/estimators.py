"""Compare cheap estimators of the best backbone: probe, k-NN, and LogME, in one run.

    python benchmarks/estimators.py --data-dir ../shared/data --backbones ../shared/backbones

All three score each backbone's last features of at most 500 training images. The truth is the test
accuracy of a head fitted on all training images. For each set, the table shows the accuracies, the
points lost by each estimator's choice, and its ranking quality (Kendall).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sets import class_targets, find_sets, list_images

from rootstock.assess.build import sample_rows
from rootstock.backbones.load import LAST, Backbone, load_backbone
from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.tasks.single_label.neighbours import leave_one_out_accuracy
from rootstock.tasks.single_label.task import SingleLabel

SETS = ("ants_bees", "brain_mri", "flowers12", "sign_digits")
SAMPLE = 500
L2 = 0.03
Score = Callable[[np.ndarray, np.ndarray], float]


def main() -> int:
    """Score every backbone on every set, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backbones", type=Path, default=Path("../shared/backbones"))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    options = parser.parse_args()
    weights = ["packaged", *map(str, sorted(options.backbones.glob("*.safetensors")))]
    if len(weights) < 3:
        print(f"{options.backbones} has too few weights to compare", file=sys.stderr)
        return 1
    backbones = [load_backbone(path, DEFAULT_NAME) for path in weights]
    print(
        "| set | " + " | ".join(b.card.name for b in backbones) + " | estimator | pick costs |",
        end="",
    )
    print(f" Kendall | seconds |\n|{' --- |' * (len(backbones) + 5)}")
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in find_sets(options.data_dir, options.sets, Path(scratch)):
            compare(name, list_images(folder, seed=0), folder, backbones, Path(scratch))
    return 0


def compare(
    name: str, manifest: Manifest, folder: Path, backbones: list[Backbone], scratch: Path
) -> None:
    """Return one row per estimator on one set."""
    number = {label: i for i, label in enumerate(manifest.strata)}
    train, test = manifest.rows("train"), manifest.rows("test")
    sample = sample_rows(train, SAMPLE)
    labels = {id(rows): np.array([number[r.label] for r in rows]) for rows in (train, test, sample)}
    truth, samples = [], []
    for backbone in backbones:
        store = FeatureStore(scratch / "features")
        seen, unseen, few = (
            features_of(rows, folder, backbone, store) for rows in (train, test, sample)
        )
        targets = class_targets(labels[id(train)], len(number))
        head = SingleLabel().head().fit(seen, targets, l2=L2)
        truth.append(float(np.mean(head.outputs(unseen).argmax(axis=1) == labels[id(test)])))
        samples.append(few)
    for estimator, score in ESTIMATORS.items():
        started = time.perf_counter()
        scores = [score(features, labels[id(sample)]) for features in samples]
        seconds = time.perf_counter() - started
        cost = 100 * (max(truth) - truth[int(np.argmax(scores))])
        cells = " | ".join(f"{value:.3f}" for value in truth)
        print(
            f"| {name} | {cells} | {estimator} | {cost:.1f} | {kendall(scores, truth):+.2f} "
            f"| {seconds:.1f} |",
            flush=True,
        )


def features_of(
    rows: list[ImageRow], folder: Path, backbone: Backbone, store: FeatureStore
) -> np.ndarray:
    """Return float32[N,C] at the last tap."""
    reader = FeatureReader(folder.resolve(), backbone, backbone.card.preprocess(), store)
    reader.extract(rows, [LAST], batch_size=64)
    return reader.read(rows, LAST).astype(np.float32)


def log_evidence(features: np.ndarray, labels: np.ndarray) -> float:
    """LogME (You et al. 2021, arXiv:2102.11005): mean log evidence of a Bayesian linear model.

    One model per class on one-hot targets, with two precisions from MacKay's fixed point.
    """
    inputs = features.astype(np.float64)
    left, singular, _ = np.linalg.svd(inputs, full_matrices=False)
    squares, (count, width) = singular**2, inputs.shape
    total = 0.0
    classes = np.unique(labels)
    for label in classes:
        target = (labels == label).astype(np.float64)
        parts = (left.T @ target) ** 2
        rest = target @ target - parts.sum()
        alpha = beta = 1.0
        for _ in range(50):
            shrunk = alpha / (alpha + beta * squares)
            freedom = float((1 - shrunk).sum())
            norm = float((beta**2 * squares * parts / (alpha + beta * squares) ** 2).sum())
            error = float((shrunk**2 * parts).sum() + rest)
            before = (alpha, beta)
            alpha, beta = freedom / (norm + 1e-12), (count - freedom) / (error + 1e-12)
            if np.allclose(before, (alpha, beta), rtol=1e-4):
                break
        determinant = np.log(alpha + beta * squares).sum() + (width - len(squares)) * np.log(alpha)
        evidence = width * np.log(alpha) + count * np.log(beta / (2 * np.pi))
        total += 0.5 * (evidence - beta * error - alpha * norm - determinant)
    return total / (len(classes) * count)


def probe(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the five-fold accuracy of the head."""
    targets = class_targets(labels)
    return SingleLabel().head().probe(features, targets, folds=5, l2=L2, seed=0)[0]


def kendall(scores: list[float], truth: list[float]) -> float:
    """Return the share of pairs in the same order minus the share in the other; ties count 0."""
    pairs = list(itertools.combinations(range(len(truth)), 2))
    signs = [np.sign(scores[i] - scores[j]) * np.sign(truth[i] - truth[j]) for i, j in pairs]
    return float(np.mean(signs))


ESTIMATORS: dict[str, Score] = {
    "linear probe": probe,
    "k-NN": leave_one_out_accuracy,
    "LogME": log_evidence,
}


if __name__ == "__main__":
    sys.exit(main())
