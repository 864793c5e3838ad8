"""Measure the labels that `suggest` saves, and find wrong labels at the top of the queue.

    python benchmarks/labels_saved.py --data-dir ../shared/data --cache features \
        --out benchmarks/results/labels_saved.json

Features of six sets are computed once. A labelled set grows by a sixth at a time, from one image
per class on average: by `suggest_images` (at first by features only) or at random. After each step,
the exact head is fitted and measured on the test images. The result is the number of labels at
which the accuracy reaches 95 % of that with all labels, at this step and the next.

Then 10 % of all labels are replaced by others, and `doubt_labels` orders the images. The result is
the share of wrong labels in the first 20 % of that order.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from few_images import Arrays
from label_features import INPUT_PIXELS, SETS, read_set
from sets import class_targets
from stamp import describe_run

from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.heads.linear import PROBE_L2, LinearHead
from rootstock.review.queue import doubt_labels
from rootstock.review.suggest import suggest_images
from rootstock.system.files import write_json
from rootstock.tasks.single_label.task import SingleLabel

SHARE_OF_FULL = 0.95
GROWTH = 6
MIN_STEP_IMAGES = 2
WRONG_SHARE, QUEUE_SHARE = 0.1, 0.2
FOLDS = 5
TASK = SingleLabel()


def main() -> None:
    """Measure all sets; write and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, help="folder for computed features")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/labels_saved.json"))
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in SETS:
            if arrays := read_set(name, options.data_dir, options.cache or Path(scratch)):
                results[name] = measure(arrays, options.seeds)
                print(name, results[name], flush=True)
                write_json(options.out, summarise(results))
    print({key: value for key, value in summarise(results).items() if key != "sets"})


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results with their means."""
    return describe_run("python benchmarks/labels_saved.py --data-dir ../shared/data") | {
        "backbone": DEFAULT_NAME,
        "input_pixels": INPUT_PIXELS,
        "mean_ratio": round(float(np.mean([one["ratio"] for one in results.values()])), 3),
        "mean_found": round(float(np.mean([one["found"] for one in results.values()])), 3),
        "sets": results,
    }


def measure(arrays: Arrays, seeds: int) -> dict[str, Any]:
    """Return the labels needed by each way, their ratio, and the share of wrong labels found."""
    features, labels = arrays["pool"].astype(np.float32), arrays["pool_y"]
    full = fit(features, labels, np.arange(len(labels))).score(arrays)
    needed = {
        way: [count_labels(arrays, seed, SHARE_OF_FULL * full, way) for seed in range(seeds)]
        for way in ("random", "suggest")
    }
    found = [find_wrong(features, labels, seed) for seed in range(seeds)]
    return {
        "n_pool": len(labels),
        "accuracy_with_all": round(full, 4),
        "labels": needed,
        "ratio": round(float(np.mean(needed["suggest"]) / np.mean(needed["random"])), 3),
        "found": round(float(np.mean(found)), 3),
        "found_by_seed": [round(one, 3) for one in found],
    }


class Fitted(NamedTuple):
    """A head, and the class numbers of its outputs."""

    head: LinearHead
    classes: np.ndarray

    def score(self, arrays: Arrays) -> float:
        """Return the accuracy on the test images."""
        outputs = self.head.outputs(arrays["test"].astype(np.float32))
        return float(np.mean(self.classes[outputs.argmax(axis=1)] == arrays["test_y"]))


def fit(features: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Fitted:
    """Return the exact head of the classes among some rows."""
    classes, numbers = np.unique(labels[rows], return_inverse=True)
    return Fitted(TASK.head().fit(features[rows], class_targets(numbers), l2=PROBE_L2), classes)


def count_labels(arrays: Arrays, seed: int, goal: float, way: str) -> int:
    """Return the number of labels at which the head reaches the accuracy ``goal`` and keeps it."""
    features, labels = arrays["pool"].astype(np.float32), arrays["pool_y"]
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = order[: max(4, len(np.unique(labels)))]
    reached = 0
    if way == "suggest":
        first = suggest_images(features[order], None, count=len(chosen))
        chosen = order[[one.row for one in first]]
    while True:
        rest = order[~np.isin(order, chosen)]
        uncertainty = np.ones(len(rest))
        if len(np.unique(labels[chosen])) > 1:
            fitted = fit(features, labels, chosen)
            reaches = fitted.score(arrays) >= goal
            if (reaches and reached) or not len(rest):
                return reached or len(chosen)
            reached = len(chosen) if reaches else 0
            decisions = TASK.decide(fitted.head.outputs(features[rest]), {"temperature": 1.0})
            uncertainty = TASK.uncertainty(decisions)
        count = min(len(rest), max(MIN_STEP_IMAGES, len(chosen) // GROWTH))
        next_ones = rest[:count]
        if way == "suggest":
            known = features[chosen]
            some = suggest_images(features[rest], uncertainty, count=count, known=known)
            next_ones = rest[[one.row for one in some]]
        chosen = np.concatenate([chosen, next_ones])


def find_wrong(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Return the share of wrong labels in the first part of the queue."""
    random = np.random.default_rng(seed)
    n_classes = int(labels.max()) + 1
    wrong = random.permutation(len(labels))[: round(WRONG_SHARE * len(labels))]
    given = labels.copy()
    given[wrong] = (given[wrong] + random.integers(1, n_classes, len(wrong))) % n_classes
    doubts = doubt_labels(TASK, features, class_targets(given, n_classes), folds=FOLDS, seed=seed)
    assert doubts is not None
    first = np.argsort(-doubts, kind="stable")[: round(QUEUE_SHARE * len(labels))]
    return float(np.isin(wrong, first).mean())


if __name__ == "__main__":
    main()
