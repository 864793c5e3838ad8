"""Compare the head's whole regularization path with scikit-learn's, on the same folds.

    python benchmarks/head.py

20 strengths, five folds; features of 10 classes with a low-rank structure, noise, and a ReLU, like
bottleneck features. Prints seconds, their ratio, and the best accuracy of both sides.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from sets import class_targets
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from rootstock.tasks.single_label.task import SingleLabel

STRENGTHS = np.logspace(1, -5, 20)
FOLDS, SEED, CLASSES, RANK = 5, 0, 10, 40


def main() -> None:
    """Time both sides and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=1_280)
    options = parser.parse_args()
    features, labels = make_features(options.images, options.width)
    print(f"{features.shape[0]:,} x {features.shape[1]:,}, {CLASSES} classes, ", end="")
    print(f"{len(STRENGTHS)} strengths, {FOLDS} folds, {torch.get_num_threads()} threads")
    ours, our_seconds = run_ours(features, labels)
    theirs, their_seconds = run_theirs(features, labels)
    print("| | seconds | best accuracy | at strength |\n| --- | --- | --- | --- |")
    for name, scores, seconds in (
        ("rootstock", ours, our_seconds),
        ("LogisticRegressionCV", theirs, their_seconds),
    ):
        best = int(scores.argmax())
        print(f"| {name} | {seconds:.1f} | {scores[best]:.4f} | {STRENGTHS[best]:.2g} |")
    print(f"\nratio of times: {our_seconds / their_seconds:.3f}; ", end="")
    print(f"largest difference at one strength: {100 * np.abs(ours - theirs).max():.2f} points")


def make_features(images: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[N,D] and int64[N], determined by the seed."""
    random = np.random.default_rng(SEED)
    labels = random.integers(0, CLASSES, images)
    inner = random.normal(size=(CLASSES, RANK))[labels] + 1.6 * random.normal(size=(images, RANK))
    features = inner @ random.normal(size=(RANK, width)) + 2 * random.normal(size=(images, width))
    return np.maximum(features, 0).astype(np.float32), labels


def run_ours(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mean accuracy of each strength, and the seconds."""
    started = time.perf_counter()
    path = (
        SingleLabel()
        .head()
        .cross_validate(
            features, class_targets(labels), folds=FOLDS, strengths=list(STRENGTHS), seed=SEED
        )
    )
    return path.scores, time.perf_counter() - started


def run_theirs(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Do the same with scikit-learn; its C is the inverse of strength times training images."""
    started = time.perf_counter()
    trained = len(labels) * (FOLDS - 1) / FOLDS
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    model = LogisticRegressionCV(
        Cs=1.0 / (STRENGTHS * trained),
        cv=folds,
        max_iter=1000,
        refit=False,
        use_legacy_attributes=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(StandardScaler().fit_transform(features), labels)
    scores = np.asarray(model.scores_)
    return scores.reshape(FOLDS, len(STRENGTHS)).mean(axis=0), time.perf_counter() - started


if __name__ == "__main__":
    main()
