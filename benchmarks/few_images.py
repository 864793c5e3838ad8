"""Compare the product's head search with plain references on a few images per class.

    python benchmarks/few_images.py --data-dir ../shared/data \
        --out benchmarks/results/few_images.json

Each set is indexed and its features are computed once, by the default backbone. The images are
drawn again for each number of training images per class and each seed. `auto` is the head search
of a plan without fine-tuning: probes choose the depths, heads are fitted there, and a fifth as many
validation images (at least one per class) help to choose between them. The references see the
same training images and the last features: nearest class mean and five nearest neighbours by
cosine, both centred, and scikit-learn's LogisticRegression. Test images are those of the set, or a
third. The result is written after each cell, and a repeated command continues.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sets import find_sets, list_images
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from stamp import describe_run

from rootstock.backbones.load import load_backbone
from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.config.load import load_config
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.heads.linear import PROBE_L2, read_head
from rootstock.heads.prototypes import fit_prototypes
from rootstock.metrics import standard_error
from rootstock.plan.rules import REGRET_SETS, candidate_taps
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.system.files import write_json
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.tasks.targets import Targets
from rootstock.training.objectives import HEAD_FILE, HeadObjective
from rootstock.training.tracked import Tracking
from rootstock.training.training_job import PROTOTYPE_IMAGES
from rootstock.training.trials import HeadTrial, best_head

COMMAND = "python benchmarks/few_images.py --data-dir ../shared/data"
CLASSES = {"tiny_imagenet": 20}
POOL = {"train": 80, "val": 20}
"""Images per class that are drawn from each split of the index, at most."""
TEST_IMAGES = 1_000
"""Test images, at most."""
FEW = {"train": 130, "val": 100, "test": 100}
"""Files per class folder that are indexed, at most, to avoid reading a set of 60,000 images."""
REFERENCES = ("class_means", "knn", "logistic")
Cell = dict[str, Any]
Arrays = dict[str, np.ndarray]


def main() -> int:
    """Measure the cells missing in --out, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", default=list(REGRET_SETS))
    parser.add_argument("--images", nargs="+", type=int, default=[1, 5, 10, 25])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="folder for computed features")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/few_images.json"))
    options = parser.parse_args()
    cells = json.loads(options.out.read_text())["cells"] if options.out.exists() else []
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or Path(scratch)
        sets = {name: read_set(name, options.data_dir, cache) for name in options.sets}
        for per_class in options.images:
            for name, features in sets.items():
                key = {"set": name, "per_class": per_class, "seeds": options.seeds}
                if features and not any(key.items() <= cell.items() for cell in cells):
                    cells.append(key | measure(features, per_class, options.seeds))
                    facts = {"backbone": DEFAULT_NAME, "cells": cells}
                    write_json(options.out, describe_run(COMMAND) | facts)
                    print_cell(cells[-1])
    print_table(cells)
    return 0


def read_set(name: str, root: Path, cache: Path) -> Arrays:
    """Return labels, groups, and features at each depth of `train` and `test`; {} without the set.

    ``cache`` stores them.
    """
    file = cache / f"{name}.npz"
    if not file.exists():
        with tempfile.TemporaryDirectory() as scratch:
            for _, folder in find_sets(root, [name], Path(scratch)):
                part = link_few(folder, Path(scratch) / "few", CLASSES.get(name))
                np.savez(file, **compute(list_images(part, seed=0), part, Path(scratch)))
    return dict(np.load(file)) if file.exists() else {}


def link_few(folder: Path, out: Path, classes: int | None) -> Path:
    """Return a folder with links to the first files of each class, keeping given splits."""
    if not (folder / "train").is_dir():
        return folder
    for split in (folder / name for name in FEW if (folder / name).is_dir()):
        for label in sorted(one for one in split.iterdir() if one.is_dir())[:classes]:
            target = out / split.name / label.name
            target.mkdir(parents=True)
            for image in sorted(label.iterdir())[: FEW[split.name]]:
                (target / image.name).symlink_to(image.resolve())
    return out


def compute(manifest: Manifest, folder: Path, scratch: Path) -> Arrays:
    """Return the arrays of `read_set`."""
    backbone = load_backbone("packaged", DEFAULT_NAME)
    preprocess = backbone.card.preprocess(None, manifest.rendering)
    reader = FeatureReader(folder, backbone, preprocess, FeatureStore(scratch / "store"))
    labels = manifest.strata
    rows = {
        "train": [r for name, n in POOL.items() for r in take(manifest.rows(name), labels, n)],
        "test": take(manifest.rows("test"), labels, TEST_IMAGES // len(labels)),
    }
    arrays: Arrays = {}
    for split, chosen in rows.items():
        reader.extract(chosen, backbone.tap_names)
        arrays[f"{split}_y"] = np.array([labels.index(row.target) for row in chosen])
        _, arrays[f"{split}_g"] = np.unique([row.group for row in chosen], return_inverse=True)
        arrays |= {f"{split}_{tap}": reader.read(chosen, tap) for tap in backbone.tap_names}
    return arrays


def take(rows: list[ImageRow], labels: tuple[str, ...], limit: int) -> list[ImageRow]:
    """Return at most ``limit`` rows of each class, ordered by the hash of their content."""
    ordered = sorted(rows, key=lambda row: row.sha256)
    return [r for label in labels for r in [r for r in ordered if r.target == label][:limit]]


def measure(arrays: Arrays, per_class: int, seeds: int) -> Cell:
    """Return the mean test accuracy of each way over the seeds, and auto's choices."""
    scores: dict[str, list[float]] = {name: [] for name in ("auto", *REFERENCES)}
    chosen = []
    for seed in range(seeds):
        train, val = draw(arrays["train_y"], per_class, seed)
        for name in REFERENCES:
            scores[name].append(refer(name, arrays, train))
        accuracy, head = search(arrays, train, val, per_class)
        scores["auto"].append(accuracy)
        chosen.append(head)
    means = {name: round(float(np.mean(values)), 4) for name, values in scores.items()}
    return {
        "n_test": len(arrays["test_y"]),
        "accuracy": means,
        "by_seed": {name: [round(one, 4) for one in values] for name, values in scores.items()},
        "error": round(standard_error(means["auto"], len(arrays["test_y"])), 4),
        "chosen": chosen,
    }


def draw(labels: np.ndarray, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of training and validation images."""
    random = np.random.default_rng(seed)
    orders = [random.permutation(np.flatnonzero(labels == one)) for one in np.unique(labels)]
    n_val = max(1, per_class // 5)
    train = np.concatenate([order[:per_class] for order in orders])
    return train, np.concatenate([order[per_class : per_class + n_val] for order in orders])


def refer(name: str, arrays: Arrays, train: np.ndarray) -> float:
    """Return the test accuracy of a reference on the last features."""
    features, test = (
        part.astype(np.float32) for part in (arrays["train_last"][train], arrays["test_last"])
    )
    labels = arrays["train_y"][train]
    if name == "class_means":
        predicted = fit_prototypes(features, labels).outputs(test).argmax(axis=1)
    elif name == "knn":
        mean = features.mean(axis=0)
        model = KNeighborsClassifier(min(5, len(labels)), weights="distance", metric="cosine")
        predicted = model.fit(features - mean, labels).predict(test - mean)
    else:
        predicted = LogisticRegression(max_iter=1_000).fit(features, labels).predict(test)
    return float(np.mean(predicted == arrays["test_y"]))


def search(arrays: Arrays, train: np.ndarray, val: np.ndarray, per_class: int) -> tuple[float, str]:
    """Return the test accuracy and the name of the head that the product chooses."""
    task, taps = SingleLabel(), [key[6:] for key in arrays if key.startswith("train_block")]
    taps.append("last")
    targets = targets_of(arrays, train)
    probes = {}
    if len(targets.foldable()):
        probes = {
            tap: task.head().probe(
                read(arrays, "train", tap)[train].astype(np.float32),
                targets,
                folds=5,
                l2=PROBE_L2,
                seed=0,
            )[0]
            for tap in taps
        }
    depths = candidate_taps("linear_probe", taps, probes, pinned=False)
    candidates: list[dict[str, Any]] = [
        {"tap": tap, "strengths": list(load_config(None).train.l2_grid)} for tap in depths
    ]
    if per_class <= PROTOTYPE_IMAGES:
        candidates += [{"tap": tap, "prototypes": True} for tap in depths]
    with tempfile.TemporaryDirectory() as scratch:
        files: dict[str, dict[str, Path]] = {"train": {}, "val": {}}
        for split, rows in (("train", train), ("val", val)):
            for tap in depths:
                files[split][tap] = Path(scratch) / f"{split}-{tap}.npy"
                np.save(files[split][tap], read(arrays, "train", tap)[rows])
        objective = HeadObjective(
            train_features=files["train"],
            val_features=files["val"],
            task=task,
            train_targets=targets,
            val_targets=targets_of(arrays, val),
            weighting="none",
            tracking=Tracking(NullRunLogger(), ""),
        )
        trials = SequentialSearcher().search(
            objective,
            candidates,
            directory=Path(scratch) / "trials",
            metric=task.selection,
            mode="min",
            early_stop=False,
        )
        best = best_head([HeadTrial.of(trial) for trial in trials], task.selection)
        outputs = read_head(best.directory / HEAD_FILE).outputs(read(arrays, "test", best.tap))
    return float(np.mean(outputs.argmax(axis=1) == arrays["test_y"])), best.name


def read(arrays: Arrays, split: str, tap: str) -> np.ndarray:
    """Return the features of a depth, or of several joined by ``+``."""
    return np.concatenate([arrays[f"{split}_{one}"] for one in tap.split("+")], axis=1)


def targets_of(arrays: Arrays, rows: np.ndarray) -> Targets:
    """Return the targets of some rows of `train`."""
    labels = arrays["train_y"][rows].astype(np.int64)
    names = tuple(map(str, range(int(arrays["train_y"].max()) + 1)))
    _, groups = np.unique(arrays["train_g"][rows], return_inverse=True)
    return Targets(labels, names, labels, groups)


def print_cell(cell: Cell) -> None:
    """Print one line of progress."""
    scores = ", ".join(f"{name} {value:.3f}" for name, value in cell["accuracy"].items())
    print(cell["set"], cell["per_class"], scores, file=sys.stderr, flush=True)


def print_table(cells: list[Cell]) -> None:
    """Print Markdown: a row per set and number of images."""
    print("| set | per class | auto | class means | 5-NN | logistic | auto - best | error |")
    print(f"|{' --- |' * 8}")
    for cell in sorted(cells, key=lambda cell: (cell["set"], cell["per_class"])):
        scores = cell["accuracy"]
        lead = scores["auto"] - max(scores[name] for name in REFERENCES)
        row = " | ".join(f"{100 * scores[name]:.1f}" for name in ("auto", *REFERENCES))
        print(
            f"| {cell['set']} | {cell['per_class']} | {row} | {100 * lead:+.1f} "
            f"| {100 * cell['error']:.1f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
