"""Evaluate the features of the default backbone: a linear probe on real image sets.

    python benchmarks/default_backbone.py --data-dir ../shared/data \
        --weights packaged ../shared/backbones/mobilenetv2_100.in1k.safetensors

Each row is one set of weights at its card's default input size; the first is the default network
with random weights. The probe is a logistic regression on standardized pooled features.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sets import class_targets, find_set
from sklearn.model_selection import train_test_split
from stamp import describe_run

from rootstock.backbones.card import read_card
from rootstock.backbones.load import Backbone, build_backbone, load_backbone
from rootstock.backbones.packaged import DEFAULT_NAME, packaged_weights
from rootstock.data.decode import read_image
from rootstock.data.preprocess import Preprocess
from rootstock.errors import ImageError, RootstockError
from rootstock.system.files import write_json
from rootstock.tasks.single_label.task import SingleLabel

SETS = {
    "flowers12": ("train", "test"),
    "ants_bees": ("train", "val"),
    "sign_digits": ("", ""),  # no test split: a stratified fifth is held out
}
EXTENSIONS = {".jpg", ".jpeg", ".png", ".gif", ".webp"}
L2 = 0.1
RANDOM = "random weights"
RESULT = Path(__file__).parent / "results/default_backbone.json"
COMMAND = """python benchmarks/default_backbone.py --data-dir ../shared/data \\
    --weights packaged ../shared/backbones/mobilenetv2_100.in1k.safetensors"""

Split = tuple[list[np.ndarray], np.ndarray]


def main() -> int:
    """Print one table: a row per set of weights, a column per set of images."""
    options = parse_options()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: find_set(options.data_dir, name, Path(scratch)) for name in SETS}
        missing = [name for name, folder in folders.items() if folder is None]
        if missing:
            print(f"{options.data_dir} has no folder or tar of: {', '.join(missing)}")
            print("Set the right folder with --data-dir; nothing is downloaded.")
            return 0 if len(missing) == len(SETS) else 1
        images = {name: read_set(folder, name) for name, folder in folders.items() if folder}
    print(f"| weights | input | {' | '.join(SETS)} | images/s |")
    print(f"| --- | --- | {' | '.join('---' for _ in SETS)} | --- |")
    result = describe_run(COMMAND) | {"rows": []}
    for label, backbone in backbones(options.weights):
        preprocess = backbone.card.preprocess(options.input_size)
        scores, speed = probe_all(backbone, preprocess, images)
        cells = " | ".join(f"{scores[name]:.3f}" for name in SETS)
        print(f"| {label} | {preprocess.input_size} | {cells} | {speed:.0f} |", flush=True)
        row = {"weights": label, "input_pixels": preprocess.input_size, "accuracy": scores}
        result["rows"].append(row | {"images_per_second": round(speed, 1)})
        write_json(options.out, result)
    return 0


def parse_options() -> argparse.Namespace:
    """Return the command line options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", nargs="+", default=["packaged"], help="packaged or files")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--input-size", type=int, help="pixels; default: from each card")
    return parser.parse_args()


def backbones(weights: list[str]) -> Iterator[tuple[str, Backbone]]:
    """Yield the default architecture with random weights, then every weights file."""
    yield RANDOM, random_backbone()
    for name in weights:
        backbone = load_backbone(name, DEFAULT_NAME)
        yield backbone.card.name, backbone


def random_backbone() -> Backbone:
    """Return the default network with random weights."""
    torch.manual_seed(0)
    return build_backbone(read_card(packaged_weights(DEFAULT_NAME)))


def read_set(folder: Path, name: str) -> tuple[Split, Split]:
    """Return training and test images as RGB arrays with their labels."""
    first, second = SETS[name]
    if first:
        return read_split(folder / first), read_split(folder / second)
    images, labels = read_split(folder)
    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=0.2, stratify=labels, random_state=0)
    return ([images[i] for i in train], labels[train]), ([images[i] for i in test], labels[test])


def read_split(folder: Path) -> Split:
    """Return every readable image in the class folders below ``folder``."""
    images, labels = [], []
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    for path in sorted(folder.glob("*/*")):
        if path.suffix.lower() not in EXTENSIONS:
            continue
        try:
            images.append(read_image(path).pixels)
        except ImageError as error:
            print(f"left out {path.name}: {error.message}", file=sys.stderr)
            continue
        labels.append(classes.index(path.parent.name))
    return images, np.array(labels)


def probe_all(
    backbone: Backbone, preprocess: Preprocess, images: dict[str, tuple[Split, Split]]
) -> tuple[dict[str, float], float]:
    """Return the test accuracy of a linear head per set, and the network's images per second."""
    scores, seconds, count = {}, 0.0, 0
    for name, (train, test) in images.items():
        features = []
        for pixels, _ in (train, test):
            values, took = embed(backbone, preprocess, pixels)
            features.append(values)
            seconds, count = seconds + took, count + len(pixels)
        classes = int(train[1].max()) + 1
        targets = class_targets(train[1], classes)
        head = SingleLabel().head().fit(features[0], targets, l2=L2)
        right = head.outputs(features[1]).argmax(axis=1) == test[1]
        scores[name] = round(float(np.mean(right)), 4)
    return scores, count / seconds


def embed(
    backbone: Backbone, preprocess: Preprocess, pixels: list[np.ndarray]
) -> tuple[np.ndarray, float]:
    """Return pooled features [N, D] of the last tap, and the seconds that the network took."""
    parts, seconds = [], 0.0
    for start in range(0, len(pixels), 64):
        batch = np.stack([preprocess.apply(image) for image in pixels[start : start + 64]])
        begin = time.perf_counter()
        parts.append(backbone.features(torch.from_numpy(batch), ["last"])["last"].numpy())
        seconds += time.perf_counter() - begin
    return np.concatenate(parts), seconds


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RootstockError as error:
        sys.exit(str(error))
