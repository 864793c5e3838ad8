"""Compare two rules for calling foreign images unknown: distance, and probability of the label.

    python benchmarks/unknown.py --data-dir ../shared/data --weights embedded

For each image set, a head is trained on frozen features; then every other set is shown to it. Both
rules get the same threshold: the share of validation images that they may call unknown. Prints the
area under the ROC curve and the share of foreign images that are called unknown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sets import class_targets, find_set, list_images
from sklearn.metrics import roc_auc_score

from rootstock.backbones.load import LAST, Backbone, load_backbone
from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.data.decode import read_image
from rootstock.model.novelty import Reference
from rootstock.tasks.single_label.measures import softmax
from rootstock.tasks.single_label.task import SingleLabel

SETS = ("flowers12", "ants_bees", "sign_digits", "brain_mri", "cifar10")
TRAINED = SETS[:3]
IMAGES = 500


def main() -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", default="packaged", help="as backbone.weights")
    parser.add_argument(
        "--share", type=float, default=0.05, help="share of known images that may be called unknown"
    )
    options = parser.parse_args()
    backbone = load_backbone(options.weights, DEFAULT_NAME)
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: features_of(options.data_dir, name, backbone, scratch) for name in SETS}
    print("| trained on | shown | AUC by distance | by probability | unknown | by probability |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in TRAINED:
        for row in compare(name, found, options.share):
            print(row)
    return 0


def features_of(
    root: Path, name: str, backbone: Backbone, scratch: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return features float32[N,D] and class numbers of at most IMAGES images, shuffled."""
    folder = find_set(root, name, Path(scratch))
    if folder is None:
        sys.exit(f"{root} has no {name}")
    manifest = list_images(folder, seed=0)
    rows = manifest.rows()
    order = np.random.default_rng(0).permutation(len(rows))[:IMAGES]
    preprocess = backbone.card.preprocess()
    features = []
    with torch.inference_mode():
        for index in order:
            pixels = read_image(folder / rows[index].path).pixels
            image = torch.from_numpy(preprocess.apply(pixels)[None])
            features.append(backbone.features(image, [LAST])[LAST].numpy()[0])
    numbers = {label: number for number, label in enumerate(manifest.strata)}
    return np.stack(features), np.array([numbers[rows[index].target] for index in order])


def compare(name: str, found: dict[str, tuple[np.ndarray, np.ndarray]], share: float) -> list[str]:
    """Return table rows: all other sets shown to a head for ``name``; first its test images."""
    features, labels = found[name]
    train, val, test = np.split(
        np.arange(len(labels)), [int(0.6 * len(labels)), int(0.8 * len(labels))]
    )
    targets = class_targets(labels)
    head = SingleLabel().head().fit(features[train], targets.take(train), l2=0.01)
    reference = Reference.measure(features[train], features[val], {})

    def by_distance(rows: np.ndarray) -> np.ndarray:
        return reference.distance(rows)

    def by_probability(rows: np.ndarray) -> np.ndarray:
        return 1 - softmax(head.outputs(rows)).max(axis=1)

    limits = (reference.limit(share), np.quantile(by_probability(features[val]), 1 - share))
    known = [score(features[test]) for score in (by_distance, by_probability)]
    called = [(rows > limit).mean() for rows, limit in zip(known, limits, strict=True)]
    lines = [f"| {name} | its test images | | | {called[0]:.2f} | {called[1]:.2f} |"]
    for other in SETS:
        if other == name:
            continue
        foreign = [score(found[other][0]) for score in (by_distance, by_probability)]
        auc = [
            roc_auc_score(np.r_[np.zeros(len(a)), np.ones(len(b))], np.r_[a, b])
            for a, b in zip(known, foreign, strict=True)
        ]
        called = [(far > limit).mean() for far, limit in zip(foreign, limits, strict=True)]
        shares = f"{called[0]:.2f} | {called[1]:.2f}"
        lines.append(f"| {name} | {other} | {auc[0]:.3f} | {auc[1]:.3f} | {shares} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
